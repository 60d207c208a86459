"""The anatomy of a gradient: what arrives at each step, what each step adds, what each loss sends how far back.

With `δ_t = ∂L/∂h_t`, all of it, and its local part `∂L_t/∂h_t`, that of the loss of step t alone,

    d_W_xh = Σ_t C_t,   C_t = x_tᵀ d_a_t        d_W_hh = Σ_t h_{t-1}ᵀ d_a_t        d_b_h = Σ_t d_a_t

and `δ_t` of the highest layer is `Σ_i ∂L_i/∂h_t`, the column t of the lag grid.

References: Bengio, Simard and Frasconi (1994), IEEE Transactions on Neural Networks 5(2); Pascanu, Mikolov and Bengio
(2013), ICML, arXiv:1211.5063.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Cell, Deltas, hidden, only_hidden
from .._checks import check_call, num_read
from .._gradients.by_hand import backward_readout, forward_layers
from .._gradients.truncation.windows import (
    Pieces,
    Windows,
    fold,
    neighbours,
    one_pass,
    pad_steps,
    side_by_side,
    unfold,
    window_deltas,
)
from .._losses import make_objective, step_weights
from .._nn.affine import affine_d_input
from .._nn.apply import last_states
from .._nn.loops import Residuals, bptt, deltas, states_read, weight_gradients
from .._nn.step import weight_gradients as products_back
from .._numerics import norms, tree_norm, unit_and_norm
from .._require import are_numbers, require_sizes
from .._sharding import promote, refuse_explicit
from .._types import (
    Batch,
    Gradients,
    Hiddens,
    Loss,
    Objective,
    Params,
    ReadoutParams,
    Scalar,
    States,
    accumulation_dtype,
)

SATURATED = 0.1


class LayerAnatomy(NamedTuple):
    """One layer. Norms are over its units; a step that does not exist adds nothing.

    `d_hs`         `δ_t = ∂L/∂h_t`, and `d_hs_local` the part of it that is `∂L_t/∂h_t`.
    `d_h_norms`    `‖δ_t‖` of each step and sequence, and `local_norms` of the local part.
    `part_norms`   the norm of what each step adds to the gradient of each weight, all sequences together.
    `part_cosines` the cosine between that and the whole: `Σ_t norm_t cosine_t` is the norm of the whole.
    `d_phi`        `φ'(a_t)` of each step and unit, the mean over the sequences that have the step; 0 if none has.
    `saturated`    the share of them all with `φ'(a_t)` below 0.1; 0 if no sequence has the step.
    """

    d_hs: Hiddens
    d_hs_local: Hiddens
    d_h_norms: Float[Array, "time *batch"]
    local_norms: Float[Array, "time *batch"]
    part_norms: Cell
    part_cosines: Cell
    d_phi: Float[Array, "time hid"]
    saturated: Float[Array, " time"]


class Cut(NamedTuple):
    """What truncation makes of the gradient: `params` the truncated one, `lost` its distance from the full one relative
    to that, leaf by leaf, infinite where only the full one is zero, and `d_a_norms` a layer,
    `‖d_a_t - truncated d_a_t‖` of each step and sequence.
    """

    params: Params
    lost: Params
    d_a_norms: tuple[Float[Array, "time *batch"], ...]


class Anatomy(NamedTuple):
    """What `anatomy` returns. `lag_norms[layer][lag, i - 1]` is `‖∂L_i/∂h_{i-lag}‖` of each sequence, i = 1..T; 0
    where `lag > i`, for there is no such state, and where a reset is between.

    `decay` is the factor by which `‖∂L_i/∂h_{i-lag}‖` falls or grows a step of lag, all layers together, and
    `decay_error` its standard error, both of a line through the log of means over what is not zero. None if `lags` is
    below 2. 0 if fewer than two lags have something that is not zero; the error is infinite if fewer than three have.
    """

    loss: Scalar
    h_T: States
    gradients: Gradients
    layers: tuple[LayerAnatomy, ...]
    lag_norms: tuple[Float[Array, "lags time *batch"], ...]
    decay: Scalar | None
    decay_error: Scalar | None
    cut: Cut | None


def anatomy(
    params: Params,
    batch: Batch,
    h_0: States,
    *,
    loss: str | Loss = "cross_entropy",
    reduction: str = "mean",
    lags: int = 0,
    k1: int | None = None,
    k2: int | None = None,
) -> Anatomy:
    """Loss and gradient, and where the gradient comes from, in one forward and one backward pass.

    The lag grid, of lags 0 to `lags` (to T, if `lags` is larger), takes as many steps back for all losses side by side,
    the memory of one more sequence of states, and `(lags + 1) T` numbers a layer and sequence. With `k1` and `k2`,
    `cut` says what the windows of `"truncated"` lose. Exported for any length, T a symbol, the grid has all `lags`,
    zero past T.
    Pure: jit it with the options bound, `jax.jit(functools.partial(anatomy, lags=20))`. Under jit, what is not used
    costs nothing.

    Raises:
        ValueError: as the functions of `make_grad_fn` do, and for lags or windows out of range.

    >>> import functools, jax, jax.numpy as jnp, rnn_jax
    >>> problem = rnn_jax.make_problem(rnn_jax.Case(time=30, num_layers=2), dtype=jnp.float32)
    >>> found = jax.jit(functools.partial(rnn_jax.anatomy, lags=10))(*problem)
    >>> found.layers[0].d_h_norms.shape, found.lag_norms[1].shape
    ((30, 3), (11, 30, 3))
    >>> parts = found.layers[0].part_norms.w_hh * found.layers[0].part_cosines.w_hh
    >>> bool(jnp.allclose(jnp.sum(parts), jnp.linalg.norm(found.gradients.params.cells[0].w_hh), rtol=1e-4))
    True
    """
    check_call(params, batch, h_0)
    require_sizes(least=0, lags=lags)
    if (k1 is None) != (k2 is None):
        raise ValueError(f"`k1` and `k2` must be given both, or none, got {k1} and {k2}.")
    if k1 is not None and k2 is not None:
        require_sizes(k1=k1, k2=k2)
        if k2 < k1:
            raise ValueError(f"`k2` must be at least `k1`, got {k2} and {k1}.")
    settle = make_objective(loss, reduction)
    refuse_explicit((params, batch._replace(key=None), h_0), "anatomy", "gather them")
    params, batch, h_0 = promote((params, batch._replace(key=None), h_0))

    passed = there_and_back(settle(params, batch), params, batch, h_0)
    layers = tuple(map(layer_anatomy, passed.saved, passed.layers))
    time = batch.inputs.shape[0]
    grid = lag_grid(passed, batch, min(lags, time) if are_numbers(time) else lags)
    decay, error = decay_rate(mean_over_steps(grid))
    cut = None if k1 is None or k2 is None else cut_by_windows(passed, batch, k1, k2)
    gradients = jax.tree.map(lambda d, x: d.astype(x.dtype), passed.gradients.params, params)
    return Anatomy(
        passed.loss, passed.h_T, passed.gradients._replace(params=gradients), layers, grid, decay, error, cut
    )


class OfLayer(NamedTuple):
    """What the way back through one layer leaves behind."""

    d_cell: Cell
    d_h_0: Array
    d_hs: Array
    local: Hiddens
    deltas: Deltas


class Passed(NamedTuple):
    """What one way there and back leaves behind; tuples have an entry a layer."""

    loss: Scalar
    h_T: States
    gradients: Gradients
    saved: tuple[Residuals, ...]
    layers: tuple[OfLayer, ...]


def there_and_back(objective: Objective, params: Params, batch: Batch, h_0: States) -> Passed:
    """Loss and gradient as `"bptt"` has them, with what the loops over time emit."""
    hs, saved = forward_layers(bptt(), params, batch, h_0)
    value, d_readout, d_hs_read = backward_readout(objective, params.readout, batch, hidden(params.cells[-1], hs[-1]))
    d_reads = local = d_hs_read
    layers: list[OfLayer] = []
    for i in reversed(range(len(saved))):
        d_h_0, (d_hs, d_as) = deltas(saved[i], d_reads, jnp.zeros_like(h_0[i]), emit=lambda *of_step: of_step)
        layers.insert(0, OfLayer(weight_gradients(saved[i], d_as), d_h_0, d_hs, local, d_as))
        if i:
            below, w_t = saved[i - 1].layer, params.cells[i].w_xh.T
            d_reads, local = below.down(d_as.z @ w_t), below.down(of_step(saved[i], local).z @ w_t)
    d_xs = affine_d_input(batch.inputs, layers[0].deltas.z, params.cells[0].w_xh)
    d_params = Params(tuple(layer.d_cell for layer in layers), d_readout)
    gradients = Gradients(d_params, tuple(layer.d_h_0 for layer in layers), d_xs)
    return Passed(value, last_states(h_0, hs), gradients, tuple(saved), tuple(layers))


def of_step(residuals: Residuals, d_hs: Hiddens) -> Deltas:
    """The deltas of `d_h_t`, each step by itself: nothing travels through time."""
    cell = residuals.layer.cell
    made, _ = cell.backward(residuals.kept, only_hidden(cell, d_hs))
    return jax.tree.map(residuals.events.d_leave, made)


def layer_anatomy(residuals: Residuals, layer: OfLayer) -> LayerAnatomy:
    """What a layer's part of the backward pass says of its steps."""

    def of_step(now: Any) -> tuple[Cell, Cell]:
        return norm_and_cosine(products_back(residuals.layer.cell, *now), layer.d_cell)

    part_norms, part_cosines = lax.map(of_step, steps_of(residuals, layer.deltas))
    d_phi, saturated = saturation(residuals)
    d_hs, local = layer.d_hs, layer.local
    return LayerAnatomy(d_hs, local, norms(d_hs), norms(local), part_norms, part_cosines, d_phi, saturated)


def steps_of(residuals: Residuals, d_as: Deltas) -> tuple[Array, Hiddens, Deltas]:
    """`(x_t, h_{t-1}, d_a_t)` for t = 1..T, as the weights read them."""
    return residuals.xs, states_read(residuals), d_as


def norm_and_cosine(part: Cell, whole: Cell) -> tuple[Cell, Cell]:
    """Leaf by leaf the norm of a part, and its cosine with the whole; 0 where one of them is zero."""
    cosines = jax.tree.map(lambda p, w: jnp.sum(unit_and_norm(p)[0] * unit_and_norm(w)[0]), part, whole)
    return jax.tree.map(tree_norm, part), cosines


def saturation(residuals: Residuals) -> tuple[Float[Array, "time hid"], Float[Array, " time"]]:
    """`φ'` of each step and unit, the mean over sequences; the share of them below `SATURATED`."""
    cell: Any = residuals.layer.cell
    d_phi = cell.d_phi(residuals.kept)
    time, *batch_axes, hid = d_phi.shape
    d_phi = d_phi.astype(accumulation_dtype(d_phi.dtype)).reshape(time, math.prod(batch_axes), hid)
    mask = residuals.events.mask
    exists = jnp.ones(d_phi.shape[:2], bool) if mask is None else mask.reshape(d_phi.shape[:2])
    num = jnp.maximum(jnp.sum(exists, 1, dtype=d_phi.dtype), 1)
    weights = exists.astype(d_phi.dtype)[..., None] / num[:, None, None]
    low = (d_phi < SATURATED).astype(d_phi.dtype)
    return jnp.sum(weights * d_phi, 1), jnp.mean(jnp.sum(weights * low, 1), 1)


def lag_grid(passed: Passed, batch: Batch, lags: int) -> tuple[Float[Array, "lags time *batch"], ...]:
    """`‖∂L_i/∂h_{i-lag}‖` of each layer and sequence, lag = 0..lags: windows of one step, side by side.

    In pass q the window of loss i is at step i - q. What has come to the state there is what the step after sent back,
    and what the layer above reads of it.
    """
    time = batch.inputs.shape[0]
    first = tuple(norms(local)[None] for local in (layer.local for layer in passed.layers))
    if not lags:
        return first
    folded = side_by_side(list(passed.saved), 1)
    pieces = Pieces(Windows(k1=1, k2=2 * time, time=time, passes=lags), folded, 0)  # no end to the reach

    def arrived(entering: States, d_as: tuple[Deltas, ...]) -> States:
        """`∂L_i/∂h_{i-q}` of each layer."""
        from_above = (
            below.layer.down(d_a.z[0] @ above.layer.cell.w_xh.T)
            for d_a, below, above in zip(d_as[1:], passed.saved, passed.saved[1:], strict=False)
        )
        return (*map(jnp.add, entering[:-1], from_above), entering[-1])

    def of_losses(d_hs: States, left: States, q: Any) -> tuple[Array, ...]:
        """`d_hs[i]` is at the place of step i; moved to that of its loss, q later. Before the first step is `h_0`."""
        number = jnp.arange(time)

        def moved(d_h: Array, d_h_0: Array) -> Array:
            at_loss = jnp.roll(norms(d_h), q, 0)
            place = number.reshape(time, *(1,) * (at_loss.ndim - 1))
            at_loss = jnp.where(place >= q, at_loss, 0)
            return jnp.where(place == q - 1, norms(d_h_0)[None], at_loss)

        return tuple(map(moved, d_hs, left))

    def again(leaving: States, q: Any) -> tuple[States, tuple[Array, ...]]:
        entering = neighbours(leaving, tuple(jnp.zeros_like(d_h[0]) for d_h in leaving))
        left = tuple(d_h[0] for d_h in leaving)
        leaving, d_as = one_pass(pieces, q, None, entering)
        return leaving, of_losses(arrived(entering, d_as), left, q)

    nothing = tuple(jnp.zeros_like(r.ss[0]) for r in folded)
    leaving, _ = one_pass(pieces, 0, fold(passed.layers[-1].local, 1), nothing)
    _, others = lax.scan(again, leaving, jnp.arange(1, lags + 1))
    return tuple(map(lambda *parts: jnp.concatenate(parts), first, others))


def mean_over_steps(grid: tuple[Float[Array, "lags time *batch"], ...]) -> Float[Array, " lags"]:
    """The mean of the norm over all layers, over the losses of which anything gets so far: no reset is between."""
    whole = norms(jnp.stack(grid, -1))
    lags, time = whole.shape[:2]
    lag, place = jnp.arange(lags)[:, None], jnp.arange(time)[None]
    there = (lag <= place + 1).reshape(lags, time, *(1,) * (whole.ndim - 2)) & (whole > 0)
    axes = tuple(range(1, whole.ndim))
    num_losses = jnp.sum(there, axes, dtype=whole.dtype)
    return jnp.sum(jnp.where(there, whole, 0), axes) / jnp.maximum(num_losses, 1)


def decay_rate(norms: Float[Array, " lags"]) -> tuple[Scalar | None, Scalar | None]:
    """The factor a step, and its standard error, of the line through the log of norms from lag 1 on.

    None for fewer than two such lags. With fewer than two norms above zero the factor is 0; with fewer than three
    nothing tells the error, which is infinite.
    """
    if len(norms) < 3:
        return None, None
    lag = jnp.arange(len(norms))
    seen = (norms > 0) & (lag > 0)
    weight = seen.astype(norms.dtype)
    num = jnp.sum(weight)
    logs = jnp.log(jnp.where(seen, norms, 1))
    lag = lag.astype(norms.dtype)

    def centred(x: Array) -> Array:
        return weight * (x - jnp.sum(weight * x) / jnp.maximum(num, 1))

    x, y = centred(lag), centred(logs)
    enough = num >= 2
    spread = jnp.where(enough, jnp.sum(x * x), 1)
    slope = jnp.sum(x * y) / spread
    rest = y - slope * x
    error = jnp.sqrt(jnp.sum(rest * rest) / jnp.maximum(num - 2, 1) / spread)
    decay = jnp.where(enough, jnp.exp(slope), 0)
    return decay, jnp.where(num >= 3, decay * error, jnp.inf)


def cut_by_windows(passed: Passed, batch: Batch, k1: int, k2: int) -> Cut:
    """What the windows of `"truncated"` send back, from the states of the pass that was made."""
    time = batch.inputs.shape[0]
    after = -(-time // k1) * k1 - time if time != 0 else k1  # there is a window at least, even if no step of it exists
    if are_numbers(time):
        k2 = min(k2, max(time, 1))
        passes = max(-(-(k2 + after) // k1), 1)
    else:
        passes = -(-(k2 + k1 - 1) // k1)  # enough for any number of steps
    windows = Windows(k1=k1, k2=k2, time=time, passes=passes)

    def longer(r: Residuals) -> Residuals:
        events = r.events
        if events.mask is None and after != 0:
            events = events._replace(mask=jnp.ones(r.ss.shape[:-1], bool))
        ss, kept, events = pad_steps((r.ss, r.kept, events), 0, after)
        return r._replace(ss=ss, kept=kept, events=events)

    later = tuple(jnp.zeros((windows.passes, *r.s_0.shape), r.s_0.dtype) for r in passed.saved)
    d_hs = fold(pad_steps(passed.layers[-1].local, 0, after), k1)
    pieces = Pieces(windows, side_by_side([longer(r) for r in passed.saved], k1), 0)
    _, sums = window_deltas(pieces, d_hs, later)
    d_as = [jax.tree.map(lambda x: x[:time], unfold(d_a)) for d_a in sums]
    d_cells = tuple(weight_gradients(r, d_a) for r, d_a in zip(passed.saved, d_as, strict=True))
    full = passed.gradients.params
    params = Params(d_cells, full.readout)

    def distance(x: Array, y: Array) -> Array:
        apart, whole = tree_norm(x - y), tree_norm(y)
        relative = jnp.where(whole > 0, apart / jnp.where(whole > 0, whole, 1), jnp.inf)
        return jnp.where(apart > 0, relative, 0)

    pairs = zip(d_as, passed.layers, strict=True)
    d_a_norms = tuple(norms(mine.z - layer.deltas.z) for mine, layer in pairs)
    lost = jax.tree.map(distance, params, full)
    return Cut(jax.tree.map(lambda d, w: d.astype(w.dtype), params, full), lost, d_a_norms)


def step_gradients(
    params: Params, batch: Batch, h_0: States, *, loss: str | Loss = "cross_entropy", reduction: str = "mean"
) -> tuple[Scalar, Params]:
    """`(loss, parts)`: the gradient of the weights at each time step, `parts` like `params` with time before each leaf.

    Of the cells, step t has `x_tᵀ d_a_t`, `h_{t-1}ᵀ d_a_t` and `d_a_t`, what it adds to the gradient of the loss of all
    steps; of the readout `h_tᵀ d_y_t` and `d_y_t`, zero where it is not read. Sums over the first axis are the
    gradient. It takes T times the memory of the weights; their norms alone are in `anatomy`.

    Raises:
        ValueError: as the functions of `make_grad_fn` do.

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> problem = rnn_jax.make_problem(rnn_jax.Case(time=30), dtype=jnp.float32)
    >>> loss, parts = jax.jit(rnn_jax.step_gradients)(*problem)
    >>> parts.cells[0].w_hh.shape
    (30, 4, 4)
    >>> (loss, _), gradients = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))(*problem)
    >>> bool(jnp.allclose(parts.cells[0].w_hh.sum(0), gradients.params.cells[0].w_hh, atol=1e-5))
    True
    """
    check_call(params, batch, h_0)
    settle = make_objective(loss, reduction)
    refuse_explicit((params, batch._replace(key=None), h_0), "step_gradients", "gather them")
    params, batch, h_0 = promote((params, batch._replace(key=None), h_0))
    objective = settle(params, batch)
    passed = there_and_back(objective, params, batch, h_0)
    cells = tuple(
        lax.map(lambda now, r=r: products_back(r.layer.cell, *now), steps_of(r, layer.deltas))
        for r, layer in zip(passed.saved, passed.layers, strict=True)
    )
    time, last = batch.inputs.shape[0], num_read(batch)
    weights = step_weights(batch, objective.scale.dtype)

    def of_readout(now: Any) -> ReadoutParams:
        h_t, target_t, w_t = jax.tree.map(lambda x: x[None], now)
        step = Batch(h_t, target_t, w_t, drop=batch.drop)
        return backward_readout(objective, params.readout, step, h_t)[1]

    read = lax.map(of_readout, (hidden(params.cells[-1], passed.saved[-1].ss[time - last :]), batch.targets, weights))
    parts = Params(cells, jax.tree.map(lambda d: pad_steps(d, time - last, 0), read))
    return passed.loss, jax.tree.map(lambda d, w: d.astype(w.dtype), parts, params)
