"""What the cells of libraries on JAX compute, written to `gated_*.npz` for tests/test_gated_parity.py.

Run by hand, with the libraries whose files are to be made:

    pip install flax equinox dm-haiku keras
    python tests/golden/make_gated_golden.py linen nnx equinox haiku keras

Each cell runs over one problem in float64, with weights by the library's own names and in its own shapes, and with its
carry in its own order. The results of a cell are `gru.ys` and so on. The gradients are the library's, by `jax.grad`, of
the two sums in `SUMS`; this axis is first.
"""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it when it is imported
PACKAGES = {"linen": "flax", "nnx": "flax", "equinox": "equinox", "haiku": "dm-haiku", "keras": "keras"}
CELLS = {library: ("gru", "lstm", "rnn") for library in PACKAGES} | {
    "equinox": ("gru", "lstm"),  # it has no vanilla cell
    "haiku": ("lstm", "rnn"),  # its GRU resets before the product
}
SUMS = ("ys", "ys and last")  # weighted sums: of the outputs; of the outputs and of the last carry
PARTS = {"gru": 1, "lstm": 2, "rnn": 1}
TIME, BATCH, IN, HID = 7, 3, 3, 4


def golden(library: str) -> dict[str, np.ndarray]:
    """All arrays by name, each float64 except for the versions."""
    from importlib.metadata import version

    versions = [f"{package} {version(package)}" for package in ("jax", PACKAGES[library])]
    rng, arrays = np.random.default_rng(0), {"versions": np.array(versions)}
    for cell in CELLS[library]:
        fresh, call = make(library, cell)
        shapes = {name: w.shape for name, w in fresh.items()}
        arrays |= {f"{cell}.{name}": array for name, array in _case(rng, shapes, call, PARTS[cell]).items()}
    return arrays


def make(library: str, cell: str, **options):
    """A cell: its fresh weights by name, and `call(weights, xs, carry) -> (ys, last)`."""
    fresh, call = _promoting(MAKE[library])(cell, **options)
    return fresh, _promoting(call)


def _promoting(fn):
    """`fn` with JAX's own rules of promotion, which the libraries need and the tests forbid."""

    def call(*args, **options):
        import jax

        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return fn(*args, **options)

    return call


def save(library: str, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays as one, with their names and shapes: a file of many small arrays is mostly headers."""
    versions, *rest = arrays.items()
    layout = json.dumps({name: array.shape for name, array in rest})
    values = np.concatenate([array.ravel() for _, array in rest])
    np.savez_compressed(path_of(library), versions=versions[1], layout=layout, values=values)
    print(f"{path_of(library).name}: {path_of(library).stat().st_size} bytes, {', '.join(versions[1])}")


def load(library: str) -> dict[str, np.ndarray]:
    """What `save` wrote, without the versions."""
    with np.load(path_of(library)) as file:
        shapes, values = json.loads(str(file["layout"])), file["values"]
    parts = np.split(values, np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def path_of(library: str) -> Path:
    return Path(__file__).with_name(f"gated_{library}.npz")


def drawn(rng, scale, *shape):
    """Normal numbers, rounded so that the file is small."""
    return np.round(256 * scale * rng.standard_normal(shape)) / 256


def _case(rng, shapes, call, parts):
    """The problem and the results of one cell. `call(weights, xs, carry) -> (ys, last)` is the library's.

    A carry of one part is an array, one of several a tuple; the names of the parts are their places.
    """
    import jax
    import jax.numpy as jnp

    names, steps = [str(i) for i in range(parts)], (TIME, BATCH)
    problem = {
        "weights": {name: drawn(rng, 0.3 if len(shape) == 1 else 0.7, *shape) for name, shape in shapes.items()},
        "inputs": drawn(rng, 0.7, *steps, IN),
        "carry": {name: drawn(rng, 0.5, BATCH, HID) for name in names},
    }
    factors = {"ys": drawn(rng, 1.0, *steps, HID), "last": {name: drawn(rng, 1.0, BATCH, HID) for name in names}}

    def sums(problem):
        carry = tuple(problem["carry"][name] for name in names)
        ys, last = call(problem["weights"], problem["inputs"], carry if parts > 1 else carry[0])
        last = dict(zip(names, jax.tree.leaves(last), strict=True))
        of_ys, of_last = jnp.sum(factors["ys"] * ys), sum(jnp.sum(factors["last"][name] * last[name]) for name in names)
        return jnp.stack([of_ys, of_ys + of_last]), (ys, last)

    gradients, (ys, last) = jax.jacrev(sums, has_aux=True)(jax.tree.map(jnp.asarray, problem))
    results = flat({"problem": problem, "factors": factors, "ys": ys, "last": last, "gradients": gradients})
    for name, array in results.items():
        assert array.dtype == np.float64 and np.any(array), name
    return results


def flat(tree, prefix=""):
    """A tree of dicts as one dict; the names are joined by dots."""
    if not isinstance(tree, dict):
        return {prefix: np.asarray(tree)}
    return {
        name: array for key, leaf in tree.items() for name, array in flat(leaf, f"{prefix}.{key}".strip(".")).items()
    }


def linen(cell):
    """`nn.GRUCell`, `nn.OptimizedLSTMCell`, `nn.SimpleCell`: a carry h, or (c, h)."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn
    from flax.traverse_util import flatten_dict, unflatten_dict

    kind = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell, "rnn": nn.SimpleCell}[cell]
    module = kind(HID, param_dtype=jnp.float64)
    x_t = jnp.zeros((BATCH, IN))
    key = jax.random.key(0)
    fresh = module.init(key, module.initialize_carry(key, x_t.shape), x_t)["params"]

    def call(weights, xs, carry):
        variables = {"params": unflatten_dict(weights, sep="/")}
        last, ys = jax.lax.scan(lambda carry, x_t: module.apply(variables, carry, x_t), carry, xs)
        return ys, last

    return flatten_dict(fresh, sep="/"), call


def nnx(cell):
    """`nnx.GRUCell`, `nnx.OptimizedLSTMCell`, `nnx.SimpleCell`: a carry h, or (c, h)."""
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from flax.traverse_util import flatten_dict, unflatten_dict

    kind = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell, "rnn": nnx.SimpleCell}[cell]
    options = {"dtype": jnp.float64} if cell == "rnn" else {}  # its default is float32, whatever its parameters are
    graph, state = nnx.split(kind(IN, HID, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options))

    def call(weights, xs, carry):
        full = jax.tree.map(lambda w: w, state)
        nnx.replace_by_pure_dict(full, unflatten_dict(weights, sep="/"))
        last, ys = jax.lax.scan(lambda carry, x_t: nnx.merge(graph, full)(carry, x_t), carry, xs)
        return ys, last

    return flatten_dict(nnx.to_pure_dict(state), sep="/"), call


def equinox(cell):
    """`eqx.nn.GRUCell`, `eqx.nn.LSTMCell`, of one sequence each: a carry h, or (h, c)."""
    import dataclasses

    import equinox as eqx
    import jax

    kind = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[cell]
    module = kind(IN, HID, dtype=float, key=jax.random.key(0))
    names = [field.name for field in dataclasses.fields(module) if not field.metadata.get("static")]

    def call(weights, xs, carry):
        full = eqx.tree_at(lambda m: [getattr(m, name) for name in names], module, [weights[name] for name in names])

        def step(carry, x_t):
            carry = jax.vmap(full)(x_t, carry)
            return carry, carry[0] if cell == "lstm" else carry

        last, ys = jax.lax.scan(step, carry, xs)
        return ys, last

    return {name: getattr(module, name) for name in names}, call


def haiku(cell):
    """`hk.LSTM`: a carry (hidden, cell), which adds 1 to the forget gate in each step. `hk.VanillaRNN`: a carry h."""
    import haiku as hk
    import jax
    import jax.numpy as jnp

    def unroll(xs, carry):
        core, state = (hk.LSTM(HID), hk.LSTMState(*carry)) if cell == "lstm" else (hk.VanillaRNN(HID), carry)
        return hk.dynamic_unroll(core, xs, state)

    net, h = hk.without_apply_rng(hk.transform(unroll)), jnp.zeros((BATCH, HID))
    fresh = net.init(jax.random.key(0), jnp.zeros((TIME, BATCH, IN)), (h, h) if cell == "lstm" else h)

    def call(weights, xs, carry):
        modules = {module: {leaf: weights[f"{module}/{leaf}"] for leaf in leaves} for module, leaves in fresh.items()}
        return net.apply(modules, xs, carry)

    return {f"{module}/{leaf}": w for module, leaves in fresh.items() for leaf, w in leaves.items()}, call


def keras(cell, activation=None):
    """`keras.layers.GRU` with `reset_after`, `keras.layers.LSTM`, `keras.layers.SimpleRNN`: a carry h, or [h, c].

    On JAX, Keras casts to float32 for its own "tanh", whatever the dtype of the layer. So the layer gets JAX's.
    """
    import jax
    import jax.numpy as jnp
    import keras

    kind = {"gru": keras.layers.GRU, "lstm": keras.layers.LSTM, "rnn": keras.layers.SimpleRNN}[cell]
    layer = kind(HID, return_sequences=True, return_state=True, dtype="float64", activation=activation or jnp.tanh)
    layer.build((BATCH, TIME, IN))
    names = [variable.name for variable in layer.trainable_variables]
    others = [variable.value for variable in layer.non_trainable_variables]

    def call(weights, xs, carry):
        (ys, *last), _ = layer.stateless_call(
            [weights[name] for name in names], others, jnp.swapaxes(xs, 0, 1), initial_state=jax.tree.leaves(carry)
        )
        return jnp.swapaxes(ys, 0, 1), last

    return {variable.name: variable.value for variable in layer.trainable_variables}, call


MAKE = {"linen": linen, "nnx": nnx, "equinox": equinox, "haiku": haiku, "keras": keras}


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    for library in sys.argv[1:]:
        save(library, golden(library))
