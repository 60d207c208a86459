"""Two layers over one sequence, one in each direction of time."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._cells.protocol import Cell, hidden
from .._checks import check_cell, check_flags, check_inputs, check_layout, check_state, steps_shape
from .._require import require_callable
from .._types import Flags, Hidden, Inputs, State, Trajectory
from .unroll_bptt import unroll_bptt


def bidirectional(
    cells: tuple[Cell, Cell],
    h_0: tuple[Array, Array],
    xs: Inputs,
    *,
    mask: Flags | None = None,
    reset: Flags | None = None,
    rs: tuple[Hidden | None, Hidden | None] = (None, None),
    unroll: Callable[..., Trajectory] = unroll_bptt,
) -> Float[Array, "time *batch hid2"]:
    """Run two layers over a sequence, one in each direction: `[h→_t, h←_t]` for t = 1..T.

    `h→_t` is the state of the first cell after `x_1..x_t`, and `h←_t` is the state of the second cell after `x_T..x_t`.
    So the last state of the backward direction is in the first step, `hs[0]`.

    Args:
        cells: the cells of the forward and of the backward direction.
        h_0: their initial states, (*batch, hid) each, or (*batch, 2 hid) for an LSTM. Backwards, each sequence starts
            from `h_0[1]` at its own last step that exists.
        xs: features (time, *batch, in) or integer tokens (time, *batch).
        mask: booleans (time, *batch), false at steps that do not exist; see `unroll`.
        reset: booleans (time, *batch), true at the first step of a sequence. It separates the sequences of a row in
            both directions.
        rs: the dropout masks `r` of the two directions, as in `unroll`.
        unroll: `unroll_bptt`, `unroll`, or your own function, as in `apply`.

    Returns:
        The states of both directions, concatenated: (time, *batch, hid of the first cell + hid of the second).

    Raises:
        ValueError: if the shapes of the arguments do not fit each other.
        TypeError: if their dtypes do not fit, or `cells`, `h_0` or `rs` is not a tuple of two.

    References: Schuster and Paliwal (1997), IEEE Transactions on Signal Processing 45(11).

    >>> import jax, jax.numpy as jnp, rnn_jax
    >>> params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=1)
    >>> there = params.cells[0]
    >>> back = rnn_jax.init_params(jax.random.key(1), input_size=2, hidden_size=3, output_size=1).cells[0]
    >>> mask = rnn_jax.data.lengths_to_mask(jnp.array([7, 4, 0]), 7)
    >>> h_0 = jnp.zeros((3, 3))
    >>> rnn_jax.bidirectional((there, back), (h_0, h_0), jnp.ones((7, 3, 2)), mask=mask).shape
    (7, 3, 6)
    """
    require_callable(unroll=unroll)
    for name, pair in (("cells", cells), ("h_0", h_0), ("rs", rs)):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"`{name}` must be a tuple of two, one for each direction, got {type(pair).__name__}.")
    (there, back), (r, r_back) = cells, rs
    for i in range(2):
        _check_direction(i, cells[i], h_0[i], xs, rs[i])
    check_flags(steps_shape(xs), mask=mask, reset=reset)
    hs = unroll(there, h_0[0], xs, mask=mask, reset=reset, **_dropping(r))
    flipped = (None if x is None else x[::-1] for x in (mask, _seen_from_behind(mask, reset)))
    mask_back, reset_back = flipped
    hs_back = unroll(back, h_0[1], xs[::-1], mask=mask_back, reset=reset_back, **_dropping(r_back))[::-1]
    return jnp.concatenate([hidden(there, hs), hidden(back, hs_back)], -1)


def _check_direction(i: int, cell: Cell, h_0: State, xs: Inputs, r: Hidden | None) -> None:
    """Raise unless the arguments of direction `i` fit each other."""
    cell_name, h_name = f"cells[{i}]", f"h_0[{i}]"
    check_cell(cell, cell_name)
    batch = check_inputs(cell, xs, ("time",), "xs", cell_name)
    check_layout(xs, h_0, cell.w_xh.shape[0], ("time",), names=("xs", h_name))
    check_state(cell, h_0, batch, names=(h_name, "xs"), cell_name=cell_name)
    if r is not None:
        check_state(cell, r, batch, names=(f"rs[{i}]", "xs"), cell_name=cell_name, parts=1)


def _dropping(r: Hidden | None) -> dict[str, Hidden]:
    return {} if r is None else {"r": r}


def _seen_from_behind(mask: Flags | None, reset: Flags | None) -> Flags | None:
    """The last step of each sequence, which is where the backward direction resets.

    It is the last step that exists before a step with a reset.
    """
    if reset is None:
        return None
    exists = jnp.ones_like(reset) if mask is None else mask

    def body(behind: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        exists_t, reset_t = now
        return jnp.where(exists_t, reset_t, behind), behind

    return lax.scan(body, jnp.zeros(reset.shape[1:], bool), (exists, reset), reverse=True)[1]
