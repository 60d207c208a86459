"""Parameters in a file, public as `rnn_jax.saving`.

`parameters`   `save_params`, `load_params`: from the tree to arrays and a structure, and back
`npz`          the file: how arrays and structure stand in it; what is wrong with one that cannot be read
"""
