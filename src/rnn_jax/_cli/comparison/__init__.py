"""`rnn-jax compare`: which of several runs is best, by how much, and what it cost. Imports no jax.

`command`   the subcommand
`runs`      what each run is and has reached; groups of seeds
`tables`    the tables, for the terminal and the page
`verdict`   the results in words, and what makes a comparison unfair
`page`      the page and its picture
"""
