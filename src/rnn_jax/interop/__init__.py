"""The weights of other libraries as ours, and ours as theirs. None of these libraries is imported.

`_torch`            state dicts of `nn.RNN`, `nn.GRU`, `nn.LSTM` and `nn.Linear`
`_keras`            weight lists of `SimpleRNN`, `GRU` and `LSTM`
`_linen`, `_nnx`    parameters of the cells of flax, of both interfaces
`_haiku`            parameters of `VanillaRNN` and `LSTM`
`_equinox`          `GRUCell` and `LSTMCell`, or their arrays by name
`_gates`            the gates in another order; one bias for two; which cells another library has
`_arrays`           arrays by name: which there must be, their dtype and shapes
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
