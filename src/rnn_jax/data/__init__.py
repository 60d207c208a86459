"""Data: text as tokens, sequences of different lengths, baselines.

`_text`        symbols, tokens, streams, windows
`_sequences`   padding, packing, masks of lengths
`_corpus`      texts from files, or from the standard library
`_encodings`   the bytes of a file as text, or which encoding they look like
`_held_out`    a text cut into a part for training and a part for validation
`_ngrams`      bits per character of n-gram models
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
