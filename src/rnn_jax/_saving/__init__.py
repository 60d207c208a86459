"""Parameters in a file, public as `rnn_jax.saving`.

`parameters`   `save_params`, `load_params`: from the tree to arrays and a structure, and back
`npz`          the file: how it stores arrays and structure; why a file cannot be read
"""
