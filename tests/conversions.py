"""The weights of other libraries as ours, and what ours computes from them: for test_gated_parity.py and _torch.py."""

import jax
import jax.numpy as jnp

import rnn_jax
from rnn_jax import GRUParams, LSTMParams

WEIGHTED = rnn_jax.pointwise(lambda y, factors: jnp.sum(factors * y))


def columns(w, order, ours):
    """`w`, whose gates come in `order` along the last axis, with the gates in our order."""
    parts = dict(zip(order, jnp.split(w, len(order), -1), strict=True))
    return jnp.concatenate([parts[gate] for gate in ours], -1)


def gru_of_two_biases(w_xh, w_hh, b_x, b_u):
    """Biases of both products: only in n are they not one sum."""
    hid = len(w_hh)
    b_h = b_x + jnp.concatenate([b_u[: 2 * hid], jnp.zeros_like(b_u[2 * hid :])])
    return GRUParams(w_xh, w_hh, b_h, b_u[2 * hid :])


def linen_gru(w):
    w_xh, b_h, w_hh = (jnp.concatenate([w[name.format(g)] for g in "rzn"], -1) for name in LINEN_GRU)
    return GRUParams(w_xh, w_hh, b_h, w["hn/bias"])


def linen_lstm(w):
    w_xh, w_hh, b_h = (jnp.concatenate([w[name.format(g)] for g in "ifgo"], -1) for name in LINEN_LSTM)
    return LSTMParams(w_xh, w_hh, b_h)


LINEN_GRU = "i{}/kernel", "i{}/bias", "h{}/kernel"
LINEN_LSTM = "i{}/kernel", "h{}/kernel", "h{}/bias"


def nnx_gru(w):
    return GRUParams(w["dense_i/kernel"], w["dense_h/kernel"], w["dense_i/bias"], jnp.zeros(len(w["dense_h/kernel"])))


def nnx_lstm(w):
    return LSTMParams(w["dense_i/kernel"], w["dense_h/kernel"], w["dense_h/bias"])


def equinox_gru(w):
    return GRUParams(w["weight_ih"].T, w["weight_hh"].T, w["bias"], w["bias_n"])


def equinox_lstm(w):
    return LSTMParams(w["weight_ih"].T, w["weight_hh"].T, w["bias"])


def haiku_lstm(w, forget=1.0):
    """One matrix for x and h, x first. The 1 that haiku adds in each step goes into the bias, once."""
    hid = len(w["b"]) // 4
    w_xh, w_hh, b_h = (columns(part, "igfo", "ifgo") for part in (w["w"][:-hid], w["w"][-hid:], w["b"]))
    return LSTMParams(w_xh, w_hh, b_h + forget * jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), hid))


def keras_gru(w):
    """Keras calls the gates z, r, h: our k, r, n."""
    w_xh, w_hh, biases = (columns(w[name], "krn", "rkn") for name in ("kernel", "recurrent_kernel", "bias"))
    return gru_of_two_biases(w_xh, w_hh, *biases)


def keras_lstm(w):
    return LSTMParams(w["kernel"], w["recurrent_kernel"], w["bias"])


def torch_gru(w, place):
    """`place` is `l0`, or `l0_reverse`, and so on."""
    return gru_of_two_biases(
        w[f"weight_ih_{place}"].T, w[f"weight_hh_{place}"].T, w[f"bias_ih_{place}"], w[f"bias_hh_{place}"]
    )


def torch_lstm(w, place):
    b_h = w[f"bias_ih_{place}"] + w[f"bias_hh_{place}"]
    return LSTMParams(w[f"weight_ih_{place}"].T, w[f"weight_hh_{place}"].T, b_h)


CONVERT = {
    "linen": {"gru": linen_gru, "lstm": linen_lstm},
    "nnx": {"gru": nnx_gru, "lstm": nnx_lstm},
    "equinox": {"gru": equinox_gru, "lstm": equinox_lstm},
    "haiku": {"lstm": haiku_lstm},
    "keras": {"gru": keras_gru, "lstm": keras_lstm},
    "torch": {"gru": torch_gru, "lstm": torch_lstm},
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
