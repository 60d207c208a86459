"""Cells: what one step does with each unit, elementwise, and the derivative of that.

`protocol`     what the engine asks of a cell; how wide it is; its part h of the state
`activations`  tanh, relu, identity: φ and φ'
`vanilla`      `CellParams`: one activation, one leak for all units
`leaky`        `LeakyParams`: a leak per unit, with a gradient
`tangents`     the linear transpose of `backward`: forward mode and Jacobians
"""
