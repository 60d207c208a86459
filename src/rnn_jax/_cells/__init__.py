"""Cells: what one step does with each unit, elementwise, and its derivative.

`protocol`     what the engine needs from a cell; its width; the part h of its state
`activations`  tanh, relu, identity: φ and φ'
`vanilla`      `CellParams`: one activation, one leak for all units
`leaky`        `LeakyParams`: a leak per unit, with a gradient
`gates`, `gru`, `lstm`  what cells with gates share, and the two: `GRUParams`, `LSTMParams`
`elementwise`, `maps`  a class of cells from a map of your own; what the map must be
`kinds`        the cells by name
`tangents`     the linear transpose of `backward`: forward mode and Jacobians
"""
