"""A JAX without the experimental base class that `unroll_bptt` prefers."""

import os
import subprocess
import sys
from pathlib import Path

WITHOUT_THE_BASE_CLASS = """
from jax.experimental import hijax
for name in ("HiPrim", "VJPHiPrimitive"):
    if hasattr(hijax, name):
        delattr(hijax, name)
import sys
sys.path.append(sys.argv[1])
import jax, jax.numpy as jnp, numpy as np, rnn_jax
from by_numpy import by_numpy

def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

rng = np.random.default_rng(0)
cell = rnn_jax.CellParams(normal(2, 3), normal(3, 3), normal(3), "tanh")
args = cell, normal(4, 3), normal(5, 4, 2)

def loss(unroll):
    return lambda *args: jnp.sum(jnp.sin(unroll(*args)))

def in_reverse(f):
    grad, jacobian = jax.grad(f, (0, 1, 2)), jax.jacfwd(jax.jacrev(f))
    return lambda *args: (grad(*args), jacobian(*args), jax.vmap(jax.grad(f), (None, 0, 1))(*args))

by_hand, autodiff = jax.jit(in_reverse(loss(rnn_jax.unroll_bptt))), by_numpy(in_reverse(loss(rnn_jax.unroll)))
for x, y in zip(*(jax.tree.leaves(f(*args)) for f in (by_hand, autodiff)), strict=True):
    np.testing.assert_allclose(x, y, atol=1e-5 * np.max(np.abs(y)))
for forward_mode in (
    lambda: jax.jvp(loss(rnn_jax.unroll_bptt), args, args),
    lambda: jax.jacfwd(rnn_jax.unroll_bptt)(*args),
):
    try:
        forward_mode()
    except TypeError as error:
        assert "use `unroll`" in str(error), error
    else:
        raise AssertionError("forward mode went through")
params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(normal(3, 1), normal(1)))
batch = rnn_jax.Batch(args[2], normal(5, 4, 1))
by_numpy(rnn_jax.make_grad_fn("bptt", loss="squared_error"))(params, batch, (args[1],))
print("as it should")
"""


def test_without_the_experimental_base_class():
    """The fallback is a `custom_vjp`: reverse mode is the same, forward mode is refused with the way out."""
    command = [sys.executable, "-W", "error", "-c", WITHOUT_THE_BASE_CLASS, str(Path(__file__).parent)]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # JAX warns of what another has half written
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.stdout == "as it should\n", result.stderr
