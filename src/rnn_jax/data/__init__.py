"""Data: text as tokens, sequences of different lengths, baselines.

`_text`        symbols, tokens, streams, windows
`_sequences`   padding, packing, masks of lengths
`_corpus`      texts from files, or from the standard library
`_pieces`      the bytes of a file in pieces; `_encodings`: as text, or which encoding they look like
`_tokens`      a text as tokens, in pieces, `_vocab`: characters or bytes; `_token_cache`: kept in a file and mapped
`_held_out`    a text cut into a part for training and a part for validation; `_validation`: a file of its own
`_ngrams`      bits per symbol of n-gram models
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
