"""Tasks to judge recurrent networks: functions that draw a batch from a key and sizes.

`_task`      what a task is: data, loss, sizes, chance level
`_memory`    adding, copying, delayed XOR, temporal order, random permutation, flip-flop
`_sequence`  parity, brackets, counting, a sine wave
`_text`      pieces of your own text
`_table`     `TASKS`: all of them by name; a new task is a function in a file above and a line here
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
