"""A recurrent layer of flax, equinox, haiku or Keras in a model: its own scan over its own cell, and `unroll_bptt`.

    python benchmarks/modules.py            # prints the table of docs/modules.md
    python benchmarks/modules.py --save     # and keeps it in benchmarks/results/modules.json

Both are the model with a linear layer on top, the mean cross-entropy over all steps, and its gradient. Both take the
same weights in the form of the library; ours converts them in each call. Their gradients must agree. As in
derivative_forms.py the two take turns in one process.
"""

import argparse
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from derivative_forms import ROUNDS, race
from sequences import name_of

import rnn_jax
from rnn_jax._reporting.machine import PACKAGES, machine_record

RESULTS = Path(__file__).parent / "results" / "modules.json"
SHAPES = [(100, 32, 64, 128, 64), (1000, 16, 64, 128, 64)]  # time, batch, in, hid, out
AGREE = 1e-4  # in float32, relative to the norm of the gradient


def linen(hid, out, xs):
    """A GRU: `nn.RNN` over `nn.GRUCell`."""
    from flax import linen as nn

    class GRU(nn.Module):
        @nn.compact
        def __call__(self, xs):
            h_0 = jnp.zeros((xs.shape[1], hid))
            w = self.param("cell", lambda key: nn.GRUCell(hid, parent=None).init(key, h_0, xs[0])["params"])
            return rnn_jax.unroll_bptt(rnn_jax.interop.from_linen(w), h_0, xs)

    layers = nn.RNN(nn.GRUCell(hid), time_major=True), GRU()
    theirs, ours = (nn.Sequential([layer, nn.Dense(out)]) for layer in layers)
    return theirs.apply, ours.apply, theirs.init(jax.random.key(0), xs)


def nnx(hid, out, xs):
    """A GRU: `nnx.RNN` over `nnx.GRUCell`."""
    from flax import nnx

    class GRU(nnx.Module):
        def __init__(self, cell):
            self.cell = cell

        def __call__(self, xs):
            ours = rnn_jax.interop.from_nnx(nnx.state(self.cell, nnx.Param))
            return rnn_jax.unroll_bptt(ours, jnp.zeros((xs.shape[1], hid)), xs)

    def model(layer):
        graph, weights, rest = nnx.split(nnx.Sequential(layer, head), nnx.Param, ...)
        return weights, lambda weights, xs: nnx.merge(graph, weights, rest, copy=True)(xs)

    rngs = nnx.Rngs(0)
    cell, head = nnx.GRUCell(xs.shape[-1], hid, rngs=rngs), nnx.Linear(hid, out, rngs=rngs)
    (weights, theirs), (_, ours) = model(nnx.RNN(cell, time_major=True)), model(GRU(cell))
    return theirs, ours, weights


def equinox(hid, out, xs):
    """A GRU: `lax.scan` over `eqx.nn.GRUCell` for one sequence, and `jax.vmap`."""
    import equinox as eqx

    def scan(cell, h_0, xs):
        return jax.lax.scan(lambda h, x: (cell(x, h),) * 2, h_0, xs)[1]

    def unroll(cell, h_0, xs):
        return rnn_jax.unroll_bptt(rnn_jax.interop.from_equinox(cell), h_0, xs)

    def model(unroll):
        one = lambda w, xs: jax.vmap(w[1])(unroll(w[0], jnp.zeros(hid), xs))  # noqa: E731
        return lambda w, xs: jax.vmap(one, (None, 1), 1)(w, xs)

    keys = jax.random.split(jax.random.key(0))
    weights = eqx.nn.GRUCell(xs.shape[-1], hid, key=keys[0]), eqx.nn.Linear(hid, out, key=keys[1])
    return model(scan), model(unroll), weights


def haiku(hid, out, xs):
    """An LSTM: `hk.dynamic_unroll` over `hk.LSTM`."""
    import haiku as hk

    def scan(xs):
        core = hk.LSTM(hid)
        return hk.dynamic_unroll(core, xs, core.initial_state(xs.shape[1]))[0]

    class LSTM(hk.Module):
        def __call__(self, xs):
            with hk.name_scope("linear"):
                w = hk.get_parameter("w", (xs.shape[-1] + hid, 4 * hid), init=jnp.zeros)
                b = hk.get_parameter("b", (4 * hid,), init=jnp.zeros)
            cell = rnn_jax.interop.from_haiku({"linear": {"w": w, "b": b}})
            return rnn_jax.unroll_bptt(cell, jnp.zeros((xs.shape[1], 2 * hid)), xs)[..., :hid]

    layers = scan, lambda xs: LSTM()(xs)
    nets = (hk.transform(lambda xs, layer=layer: hk.Linear(out)(layer(xs))) for layer in layers)
    theirs, ours = map(hk.without_apply_rng, nets)
    return theirs.apply, ours.apply, theirs.init(jax.random.key(0), xs)


def keras(hid, out, xs):
    """A GRU: `keras.layers.GRU`, which multiplies all inputs before its scan, as ours does. The batch axis is first."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it when it is imported
    from keras import Input, Sequential, layers

    class ByHand(layers.GRU):
        def inner_loop(self, sequences, initial_state, mask, training=False):
            cell = rnn_jax.interop.from_keras(self.cell.weights)
            hs = rnn_jax.unroll_bptt(cell, initial_state[0], jnp.swapaxes(sequences, 0, 1))
            return hs[-1], jnp.swapaxes(hs, 0, 1), [hs[-1]]

    def model(kind):
        net = Sequential([Input(xs.shape[1:]), kind(hid, return_sequences=True), layers.Dense(out)])
        rest = [variable.value for variable in net.non_trainable_variables]
        return net, lambda weights, xs: net.stateless_call(weights, rest, xs)[0]

    (net, theirs), (_, ours) = model(layers.GRU), model(ByHand)
    return theirs, ours, [variable.value for variable in net.trainable_variables]


LIBRARIES = {
    "linen, GRU": linen,
    "nnx, GRU": nnx,
    "equinox, GRU": equinox,
    "haiku, LSTM": haiku,
    "Keras, GRU": keras,
}
BATCH_FIRST = ("Keras, GRU",)


def gradient(model):
    """Jitted gradient of the mean cross-entropy with respect to the weights."""

    def loss(weights, xs, targets):
        return optax.softmax_cross_entropy_with_integer_labels(model(weights, xs), targets).mean()

    return jax.jit(jax.grad(loss))


def measured(library, shape):
    """A row of the table: their scan, and ours in its place."""
    time, num, in_size, hid, out = shape
    axes = (num, time) if library in BATCH_FIRST else (time, num)
    xs = jax.random.normal(jax.random.key(1), (*axes, in_size))
    theirs, ours, weights = LIBRARIES[library](hid, out, xs)
    args = weights, xs, jax.random.randint(jax.random.key(2), axes, 0, out)
    contenders = {"their scan": gradient(theirs), "unroll_bptt": gradient(ours)}
    d_theirs, d_ours = (fn(*args) for fn in contenders.values())
    error = optax.tree.norm(optax.tree.sub(d_ours, d_theirs)) / optax.tree.norm(d_theirs)
    if not error < AGREE:
        raise AssertionError(f"{library}, {name_of(shape)}: the gradients differ by {error:.1e} of their norm.")
    return race(contenders, args)


def main():
    """Run all races."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}")
    save = parser.parse_args().save
    rows = {library: {name_of(shape): measured(library, shape) for shape in SHAPES} for library in LIBRARIES}
    for library, of_shapes in rows.items():
        print(f"\n{library}")
        for name, row in of_shapes.items():
            for contender, f in row.items():
                print(f"  {name:26} {contender:12} {f['ms']:9.3f} ms  {f['ratio']:6.3f} x  {f['temp_mib']:8.2f} MiB")
    if save:
        packages = (*PACKAGES, "flax", "equinox", "dm-haiku", "keras")
        settings = {"rounds": ROUNDS, "dtype": "float32"}
        found = {"machine": machine_record(packages), "settings": settings, "rows": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
