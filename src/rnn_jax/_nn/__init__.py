"""The network: one step, the loops over time, and what is built from them.

`affine`, `dropout`, `parameters`      products, masks, fresh parameters and states
`layer`, `events`                      what is constant in time; what happens to a step: mask, reset, truncation
`step`, `loops`, `blocks`              one step by hand; forward and backward over time; steps in a block
`unroll`, `unroll_bptt`, `primitive`   a plain scan; the same with our derivative, as a JAX primitive
`apply`, `bidirectional`, `generate`   layers and readout; both directions; sampling
"""
