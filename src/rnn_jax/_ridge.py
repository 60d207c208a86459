"""A readout by ridge regression, for networks whose recurrence is not trained: reservoirs, echo states."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from ._batches import check_call, num_read
from ._losses import step_weights
from ._nn.apply import apply
from ._require import Number, Range, require_number
from ._types import Batch, Params, ReadoutParams, States, accumulation_dtype

PENALTY = Range("a finite number of at least zero", lambda x: x >= 0)


def ridge_readout(params: Params, batch: Batch, h_0: States, penalty: Number = 1e-6) -> Params:
    """`params` with the readout that fits the targets best, by ridge regression. All other weights stay as they are.

        minimise over W and b:  Σ_t w_t |h_t W + b - target_t|² + penalty |W|²

    `h_t` are the states of the highest layer, after dropout where there is any; `w_t` are the weights of the steps, as
    for every loss. The bias is not penalised. One forward pass, and one QR decomposition of the states around their
    mean, with rows √penalty I below them: it is as exact as the states allow, where the normal equations would square
    the condition number.

    Args:
        params: the network; its readout is replaced.
        batch: the inputs, and real targets (last, *batch, out). Weights must not be negative. If no step counts, the
            result is not finite.
        h_0: initial states, one (*batch, hid) per layer.
        penalty: at least 0; at 0 the states must span all hid directions, otherwise the result is not finite.

    Returns:
        The network with the new readout.

    Raises:
        ValueError: if the shapes of the arguments do not fit each other, or a known `penalty` is negative.
        TypeError: if their dtypes do not fit, or the targets are classes.

    References: Jaeger (2001), GMD report 148; Lukoševičius (2012), Neural Networks: Tricks of the Trade, section 27.4.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> xs = 0.1 * jax.random.uniform(jax.random.key(1), (400, 1))  # small, so that tanh is almost linear
    >>> recall = rnn_jax.Batch(xs, jnp.roll(xs, 3)[100:])  # the input of three steps ago, after 100 steps
    >>> reservoir = rnn_jax.init_params(
    ...     jax.random.key(0), input_size=1, hidden_size=50, output_size=1,
    ...     recurrent_init=rnn_jax.initializers.spectral_radius(0.9))
    >>> fitted = rnn_jax.ridge_readout(reservoir, recall, rnn_jax.zero_state(reservoir))
    >>> ys, _ = rnn_jax.apply(fitted, rnn_jax.zero_state(fitted), xs, last=300)
    >>> bool(jnp.mean((ys - recall.targets) ** 2) < 0.01 * jnp.var(recall.targets))
    True
    """
    penalty = require_number("penalty", penalty, PENALTY)
    check_call(params, batch, h_0)
    targets = batch.targets
    if not (hasattr(targets, "dtype") and jnp.issubdtype(targets.dtype, jnp.floating)):
        came = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"`batch.targets` must be real numbers (last, *batch, out), got {came}: use one-hot classes.")
    w_hy, b_y = params.readout
    expected = (num_read(batch), *h_0[-1].shape[:-1], len(b_y))
    if targets.shape != expected:
        raise ValueError(f"`batch.targets` must have shape {expected}, (last, *batch, out), got {targets.shape}.")
    dtype = accumulation_dtype(w_hy.dtype)
    shown = params._replace(
        readout=ReadoutParams(jnp.eye(len(w_hy), dtype=w_hy.dtype), jnp.zeros(len(w_hy), w_hy.dtype))
    )
    last, mask, reset = num_read(batch), batch.mask, batch.reset
    hs, _ = apply(shown, h_0, batch.inputs, last=last, mask=mask, reset=reset, drop=batch.drop)
    w = step_weights(batch, dtype).reshape(-1, 1)
    hs, targets = hs.reshape(-1, hs.shape[-1]).astype(dtype), targets.reshape(-1, len(b_y)).astype(dtype)
    hs, targets = (jnp.where(w == 0, jnp.zeros_like(x), x) for x in (hs, targets))  # steps that do not count: not read
    mean_h, mean_target = (jnp.sum(w * x, 0, keepdims=True) / jnp.sum(w) for x in (hs, targets))
    below = jnp.sqrt(jnp.asarray(penalty, dtype)) * jnp.eye(len(w_hy), dtype=dtype)
    q, r = jnp.linalg.qr(jnp.concatenate([jnp.sqrt(w) * (hs - mean_h), below]))
    d_targets = jnp.concatenate([jnp.sqrt(w) * (targets - mean_target), jnp.zeros((len(w_hy), len(b_y)), dtype)])
    fitted = solve_triangular(r, q.T @ d_targets)
    (bias,) = mean_target - mean_h @ fitted
    return params._replace(readout=ReadoutParams(fitted.astype(w_hy.dtype), bias.astype(b_y.dtype)))
