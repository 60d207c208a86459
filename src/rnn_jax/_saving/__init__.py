"""Parameters in a file, public as `rnn_jax.saving`.

`parameters`    `save_params`, `load_params`: from the tree to arrays and a structure, and back
`structure`     what a file says about its arrays; why a file cannot be read
`npz`           arrays and structure in a file of NumPy
`safetensors`   the same in a safetensors file
"""
