"""What our cells compute from the weights of other libraries: for test_gated_parity.py and test_gated_torch.py."""

import jax
import jax.numpy as jnp

import rnn_jax
from rnn_jax import interop

WEIGHTED = rnn_jax.pointwise(lambda y, factors: jnp.sum(factors * y))


def of_haiku(w):
    return interop.from_haiku(w, prefix="lstm/" if "lstm/linear/w" in w else "vanilla_rnn/")


def of_keras(w):
    return interop.from_keras([w[name] for name in ("kernel", "recurrent_kernel", "bias")])


CONVERT = {
    "linen": interop.from_linen,
    "nnx": interop.from_nnx,
    "equinox": interop.from_equinox,
    "haiku": of_haiku,
    "keras": of_keras,
}
CARRY = {"linen": "ch", "nnx": "ch", "equinox": "hc", "haiku": "hc", "keras": "hc", "torch": "hc"}  # of an LSTM


def state_of(carry, order):
    """Our state `(h, c)` of a carry by place."""
    return carry["0"] if len(carry) == 1 else jnp.concatenate([carry[str(order.index(part))] for part in "hc"], -1)


def carry_of(state, order, parts):
    """The inverse."""
    split = dict(zip("hc", jnp.split(state, parts, -1), strict=False))
    return {"0": state} if parts == 1 else {str(place): split[part] for place, part in enumerate(order)}


def nested(arrays, case):
    """The arrays of one case, as a tree of dicts."""
    tree = {}
    for name, array in arrays.items():
        if name.startswith(f"{case}."):
            *parents, leaf = name.removeprefix(f"{case}.").split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[leaf] = array
    return tree


def of_both_sums(run, problem, factors):
    """`run(problem) -> (ys, last)`, and the gradients of both weighted sums, by the derivative of `run`."""
    (ys, last), pull = jax.vjp(run, problem)
    of_ys = factors["ys"], jax.tree.map(jnp.zeros_like, last)
    gradients = [pull(d)[0] for d in (of_ys, (factors["ys"], factors["last"]))]
    return {"ys": ys, "last": last, "gradients": jax.tree.map(lambda *d: jnp.stack(d), *gradients)}


def by_methods(methods, cells_of, states_of, problem, factors, mask=None):
    """The gradients of the weighted sum of the outputs, by each method, by the names of the problem."""
    (cells, h_0), pull = jax.vjp(lambda p: (cells_of(p["weights"]), states_of(p["carry"])), problem)
    hid = cells[-1].w_hh.shape[0]
    params = rnn_jax.Params(cells, rnn_jax.ReadoutParams(jnp.eye(hid), jnp.zeros(hid)))
    batch = rnn_jax.Batch(problem["inputs"], factors["ys"], mask=mask)

    def of(method):
        _, d = rnn_jax.make_grad_fn(method, loss=WEIGHTED, reduction="sum")(params, batch, h_0)
        (by_name,) = pull((d.params.cells, d.h_0))
        return by_name | {"inputs": d.inputs}

    return {method: of(method) for method in methods}
