"""Every transformation of JAX on `unroll_bptt`, in float64 against the plain scan: `docs/transformations.md`."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from problems import Case, assert_trees_close, grad_fn_of, make_problem, options_of, run

import rnn_jax
from rnn_jax import analysis, unroll, unroll_bptt
from rnn_jax._nn import loops as _bptt

ALL = (0, 1, 2)
CASES = {
    "plain": Case(time=4),
    "flags": Case(time=4, mask=True, reset=True, activation="relu"),
    "tokens": Case(time=4, mask=True, inputs="tokens", activation="identity"),
}


def problem_of(name, seed=0):
    """`(cell, h_0, xs)`, tangents of the same shapes, and the flags."""
    params, batch, h_0 = make_problem(CASES[name], seed)
    primals = params.cells[0], h_0[0], batch.inputs
    rng = np.random.default_rng(seed + 1)
    tangents = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), primals)
    return primals, tangents, {"mask": batch.mask, "reset": batch.reset}


def loss_of(unroll_fn, flags):
    """No sum over steps, and curved: second and third derivatives are not zero, of relu and identity neither."""

    def loss(cell, h_0, xs):
        hs = unroll_fn(cell, h_0, xs, **flags)
        return jnp.sum(jnp.sin(hs[-1] * hs[0])) + jnp.sum(jnp.tanh(jnp.cumsum(hs, axis=0)) ** 2)

    return loss


def ensemble(tree):
    """Three members along a new first axis."""
    return jax.tree.map(
        lambda x: jnp.stack([x, -0.5 * x, 0.7 * x]) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def dot(tree, other):
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


def over_sequences(f, h_0, xs):
    """`f(h_0, xs)` vmapped over the sequences of a batch."""
    return jax.vmap(f, (0, 1), 1)(h_0, xs)


def scanned(f, cell, h_0, xs):
    """The gradient through a `lax.scan` over windows of one step, the state carried."""

    def loss(cell, h_0):
        return lax.scan(lambda h, x: ((hs := f(cell, h, x[None]))[-1], jnp.sum(hs**2)), h_0, xs)[1].sum()

    return jax.grad(loss, (0, 1))(cell, h_0)


def repeated(f, cell, h_0, xs):
    """Gradient and tangent inside a `lax.while_loop`."""

    def body(carry):
        i, h = carry
        d_h = jax.grad(lambda h: jnp.sum(f(cell, h, xs) ** 2))(h)
        _, h_dot = jax.jvp(lambda h: f(cell, h, xs)[-1], (h,), (h,))
        return i + 1, 0.1 * jnp.tanh(d_h) + h_dot

    return lax.while_loop(lambda carry: carry[0] < 3, body, (0, h_0))[1]


def third(f, cell, h_0, xs):
    """The third derivative along a line through the weights, each order of another mode."""

    def along(s):
        return jnp.sum(f(jax.tree.map(lambda w: s * w, cell), h_0, xs) ** 3)

    def slope(s):
        return jax.jvp(along, (s,), (jnp.ones_like(s),))[1]

    return jax.grad(jax.grad(jax.grad(along)))(1.0), jax.jacfwd(jax.grad(slope))(1.0)


def closed_over(loss, s, cell, h_0, xs):
    """Weights and states made of a traced scalar, inside of a `vmap` that does not see them."""
    return jnp.sum(jax.vmap(lambda c: loss(jax.tree.map(lambda w: c * s * w, cell), s * h_0, xs))(jnp.arange(3.0)))


# name -> (f = unroll with its flags, loss, primals, tangents) -> what must be equal
TRANSFORMATIONS = {
    "values": lambda f, loss, p, t: f(*p),
    "grad": lambda f, loss, p, t: jax.grad(loss, ALL)(*p),
    "value_and_grad": lambda f, loss, p, t: jax.value_and_grad(loss, ALL)(*p),
    "grad of one argument": lambda f, loss, p, t: [jax.grad(loss, i)(*p) for i in ALL],
    "jacrev": lambda f, loss, p, t: jax.jacrev(f, ALL)(*p),
    "jacfwd": lambda f, loss, p, t: jax.jacfwd(f, ALL)(*p),
    "jvp": lambda f, loss, p, t: jax.jvp(f, p, t),
    "jvp in one argument": lambda f, loss, p, t: [
        jax.jvp(lambda x, i=i: f(*p[:i], x, *p[i + 1 :]), (p[i],), (t[i],)) for i in ALL
    ],
    "linearize": lambda f, loss, p, t: jax.linearize(f, *p)[1](*t),
    "linear_transpose": lambda f, loss, p, t: jax.linear_transpose(jax.linearize(f, *p)[1], *p)(f(*p)),
    "vjp": lambda f, loss, p, t: jax.vjp(f, *p)[1](jnp.cos(f(*p))),
    "hessian": lambda f, loss, p, t: jax.hessian(loss, (0, 1))(*p),
    "jacrev of jacrev": lambda f, loss, p, t: jax.jacrev(jax.jacrev(loss))(*p),
    "jacfwd of jacfwd": lambda f, loss, p, t: jax.jacfwd(jax.jacfwd(loss))(*p),
    "hvp, forward over reverse": lambda f, loss, p, t: jax.jvp(jax.grad(loss, ALL), p, t),
    "hvp, reverse over forward": lambda f, loss, p, t: jax.grad(lambda *p: jax.jvp(loss, p, t)[1], ALL)(*p),
    "hvp, reverse over reverse": lambda f, loss, p, t: jax.grad(lambda *p: dot(jax.grad(loss, ALL)(*p), t), ALL)(*p),
    "hvp by linearize of grad": lambda f, loss, p, t: jax.linearize(jax.grad(loss, ALL), *p)[1](*t),
    "third order": lambda f, loss, p, t: third(f, *p),
    "vmap over data": lambda f, loss, p, t: over_sequences(lambda h, x: f(p[0], h, x), *p[1:]),
    "vmap over states": lambda f, loss, p, t: jax.vmap(lambda h: f(p[0], h, p[2][:, 0]))(p[1]),
    "vmap over inputs": lambda f, loss, p, t: jax.vmap(lambda x: f(p[0], p[1][0], x), 1)(p[2]),
    "vmap over nothing mapped": lambda f, loss, p, t: jax.vmap(lambda _: f(*p))(jnp.arange(2)),
    "vmap over params": lambda f, loss, p, t: jax.vmap(lambda cell: f(cell, *p[1:]))(ensemble(p[0])),
    "vmap over both": lambda f, loss, p, t: jax.vmap(f)(*ensemble(p)),
    "vmap over one weight": lambda f, loss, p, t: jax.vmap(
        lambda b: f(type(p[0])(p[0].w_xh, p[0].w_hh, b, p[0].activation), *p[1:])
    )(ensemble(p[0].b_h)),
    "grad of vmap over data": lambda f, loss, p, t: jax.grad(
        lambda *p: jnp.sum(over_sequences(lambda h, x: f(p[0], h, x), *p[1:]) ** 2), ALL
    )(*p),
    "vmap over data of grad": lambda f, loss, p, t: jax.vmap(jax.grad(loss, ALL), (None, 0, 1))(*p),
    "vmap over params of grad": lambda f, loss, p, t: jax.vmap(jax.grad(loss, ALL), (0, None, None))(
        ensemble(p[0]), *p[1:]
    ),
    "grad of vmap over params": lambda f, loss, p, t: jax.grad(
        lambda *p: jnp.sum(jax.vmap(lambda cell: f(cell, *p[1:]))(p[0]) ** 2), ALL
    )(ensemble(p[0]), *p[1:]),
    "vmap over params of vmap over data": lambda f, loss, p, t: jax.vmap(
        lambda cell: over_sequences(lambda h, x: f(cell, h, x), *p[1:])
    )(ensemble(p[0])),
    "vmap over data of vmap over params": lambda f, loss, p, t: over_sequences(
        lambda h, x: jax.vmap(lambda cell: f(cell, h, x))(ensemble(p[0])), *p[1:]
    ),
    "grad of vmap of vmap, jvp of it": lambda f, loss, p, t: jax.jvp(
        jax.grad(
            lambda cell: jnp.sum(
                jax.vmap(lambda cell: over_sequences(lambda h, x: f(cell, h, x), *p[1:]))(ensemble(cell)) ** 2
            )
        ),
        p[:1],
        t[:1],
    ),
    "vmap over params twice": lambda f, loss, p, t: jax.vmap(jax.vmap(jax.grad(lambda cell: loss(cell, *p[1:]))))(
        ensemble(ensemble(p[0]))
    ),
    "scan": lambda f, loss, p, t: scanned(f, *p),
    "while_loop": lambda f, loss, p, t: repeated(f, *p),
    "checkpoint": lambda f, loss, p, t: jax.grad(jax.checkpoint(loss), ALL)(*p),
    "checkpoint, forward over reverse": lambda f, loss, p, t: jax.jvp(jax.grad(jax.checkpoint(loss), ALL), p, t),
    "closed-over values": lambda f, loss, p, t: jax.grad(lambda s: closed_over(loss, s, *p))(0.9),
}  # fmt: skip
WITH_FLAGS = ["grad", "jvp", "linearize", "hvp, forward over reverse", "grad of vmap over params", "vmap over params"]
COMPILED = [
    "values",
    "grad",
    "jvp",
    "linearize",
    "hvp, forward over reverse",
    "vmap over data of grad",
    "vmap over params of grad",
    "checkpoint",
]


def of(unroll_fn, name, case):
    """What a transformation makes of an unroll, as a function of primals and tangents."""
    _, _, flags = problem_of(case)
    return lambda p, t: TRANSFORMATIONS[name](lambda *p: unroll_fn(*p, **flags), loss_of(unroll_fn, flags), p, t)


def both(name, case, call=by_numpy):
    """What a transformation makes of `unroll_bptt` and of `unroll`, in one program."""
    primals, tangents, _ = problem_of(case)
    by_hand, autodiff = (of(unroll_fn, name, case) for unroll_fn in (unroll_bptt, unroll))
    return call(lambda p, t: (by_hand(p, t), autodiff(p, t)))(primals, tangents)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformation(name):
    assert_trees_close(*both(name, "plain"), rtol=1e-12)


@pytest.mark.parametrize("name", WITH_FLAGS)
def test_with_mask_and_reset(name):
    assert_trees_close(*both(name, "flags"), rtol=1e-12)


def compiled_soon(name, case):
    """Compiled in every run of the suite; the others take XLA minutes."""
    return name in COMPILED if case == "plain" else name == "grad"


@pytest.mark.parametrize(
    "name, case",
    [
        pytest.param(name, case, marks=() if compiled_soon(name, case) else pytest.mark.thorough)
        for case, names in {"plain": TRANSFORMATIONS, "flags": WITH_FLAGS}.items()
        for name in names
    ],
)
def test_compiled_by_xla_it_is_the_same(name, case):
    primals, tangents, _ = problem_of(case)
    expected = by_numpy(of(unroll, name, case))(primals, tangents)
    assert_trees_close(jax.jit(of(unroll_bptt, name, case))(primals, tangents), expected, rtol=1e-12)


def of_tokens(unroll_fn, cell, h_0, tokens, cell_dot, mask):
    """Reverse, forward, vmapped: whatever has only weights and states to differentiate."""

    def loss(cell, h_0):
        return loss_of(unroll_fn, {"mask": mask})(cell, h_0, tokens)

    def per_sequence(cell):
        states = jax.vmap(lambda h, x, m: unroll_fn(cell, h, x, mask=m), (0, 1, 1), 1)(h_0, tokens, mask)
        return jnp.sum(states**2)

    return (
        jax.grad(loss, (0, 1))(cell, h_0),
        jax.jvp(loss, (cell, h_0), (cell_dot, h_0)),
        jax.linearize(loss, cell, h_0)[1](cell_dot, h_0),
        jax.jvp(jax.grad(loss), (cell, h_0), (cell_dot, h_0)),
        jax.jacfwd(loss)(cell, h_0),
        jax.grad(per_sequence)(cell),
        jax.jvp(per_sequence, (cell,), (cell_dot,)),
        jax.grad(lambda cells: jnp.sum(jax.vmap(lambda cell: loss(cell, h_0))(cells)))(ensemble(cell)),
    )


@pytest.mark.parametrize("call", [by_numpy, pytest.param(jax.jit, marks=pytest.mark.thorough)])
def test_with_tokens(call):
    """Integers have no tangent: every mode goes by them."""
    (cell, h_0, tokens), (cell_dot, _, _), flags = problem_of("tokens")
    args = cell, h_0, tokens, cell_dot, flags["mask"]
    by_hand, autodiff = call(lambda *args: tuple(of_tokens(fn, *args) for fn in (unroll_bptt, unroll)))(*args)
    assert_trees_close(by_hand, autodiff, rtol=1e-12)
    zeros = jax.eval_shape(jax.grad(lambda x: jnp.sum(unroll_bptt(cell, h_0, x)), allow_int=True), tokens)
    assert zeros.dtype == jax.dtypes.float0 and zeros.shape == tokens.shape


@pytest.mark.parametrize("name", ["grad", "jvp", "vmap over data", "vmap over params"])
def test_not_compiled(name):
    """Every operation by itself, with `jax.disable_jit`."""
    primals, tangents, _ = problem_of("plain")
    expected = by_numpy(of(unroll, name, "plain"))(primals, tangents)
    with jax.disable_jit():
        result = of(unroll_bptt, name, "plain")(primals, tangents)
    assert_trees_close(result, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["grad", "jvp", "hvp, forward over reverse", "vmap over params of grad"])
def test_no_steps(name):
    """T = 0: a loss of nothing, gradients and tangents of nothing."""
    primals, tangents, _ = problem_of("plain")
    primals, tangents = ((cell, h, np.asarray(xs)[:0]) for cell, h, xs in (primals, tangents))

    def transformed(f):
        def loss(*p):
            return jnp.sum(f(*p) ** 2)

        return by_numpy(lambda p, t: TRANSFORMATIONS[name](f, loss, p, t))(primals, tangents)

    by_hand, autodiff = transformed(unroll_bptt), transformed(unroll)
    assert_trees_close(by_hand, autodiff, rtol=1e-12)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(by_hand))


def test_a_numpy_cotangent_in_an_eager_call():
    (cell, h_0, xs), _, _ = problem_of("plain")
    hs, vjp = jax.vjp(unroll_bptt, cell, h_0, xs)
    assert_trees_close(vjp(np.asarray(hs)), vjp(hs), rtol=1e-14)
    numpy_args = jax.tree.map(np.asarray, (cell, h_0, xs))
    assert_trees_close(jax.vjp(unroll_bptt, *numpy_args)[1](np.asarray(hs)), vjp(hs), rtol=1e-14)


def test_transposed_by_itself_it_says_what_to_do():
    (cell, h_0, xs), _, _ = problem_of("plain")
    with pytest.raises(TypeError, match="jax.linearize"):
        jax.linear_transpose(lambda h: unroll_bptt(cell, h, xs), h_0)(jnp.ones((*xs.shape[:-1], 4)))


@pytest.mark.parametrize("argument", ALL)
def test_what_is_not_perturbed_gets_no_gradient_and_harms_none(argument):
    """`None` cotangents: with a symbolic zero for one argument, the gradients of the others are as before."""
    (cell, h_0, xs), _, flags = problem_of("flags")
    loss = loss_of(unroll_bptt, flags)
    others = tuple(i for i in ALL if i != argument)
    together = by_numpy(jax.grad(loss, ALL))(cell, h_0, xs)
    assert_trees_close(by_numpy(jax.grad(loss, others))(cell, h_0, xs), tuple(together[i] for i in others), rtol=1e-12)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(together))  # none of them is silently zero


@pytest.mark.parametrize("check", [True, False])
def test_forward_mode_under_shard_map(check):
    """Tangents of sequences split over two devices; reverse mode is in `test_unroll.py`."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    params, batch, h_0 = make_problem(Case(batch=(4,)))
    primals = params.cells[0], h_0[0], batch.inputs
    specs = PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")

    def tangent(unroll_fn):
        def local(*p):
            def loss(*p):
                return lax.psum(jnp.sum(unroll_fn(*p) ** 2), "data")

            return jax.jvp(loss, p, p)[1], jax.jvp(unroll_fn, p, p)[1]

        return local

    def whole(*p):
        return jax.jvp(lambda *p: jnp.sum(unroll(*p) ** 2), p, p)[1], jax.jvp(unroll, p, p)[1]

    out = PartitionSpec(), PartitionSpec(None, "data")
    mapped = jax.shard_map(tangent(unroll_bptt), mesh=mesh, in_specs=specs, out_specs=out, check_vma=check)
    assert_trees_close(jax.jit(mapped)(*primals), by_numpy(whole)(*primals), rtol=1e-12)


def test_export_for_cpu_and_cuda():
    """One artifact with value, gradient and Hessian-vector product for both; what it computes here is right."""
    primals, _, _ = problem_of("plain")

    def derivatives(loss):
        return lambda *p: (jax.value_and_grad(loss, ALL)(*p), jax.jvp(jax.grad(loss), p, p))

    f = jax.jit(derivatives(loss_of(unroll_bptt, {})))
    exported = jax.export.export(f, platforms=["cpu", "cuda"])(*primals)
    assert exported.platforms == ("cpu", "cuda")
    expected = by_numpy(derivatives(loss_of(unroll, {})))(*primals)
    assert_trees_close(exported.call(*primals), expected, rtol=1e-12)


SYMBOLIC = {name: options_of(name) for name in rnn_jax.GRADIENTS if name not in ("last_steps", "randomised")}


def exported(method, case, options, time, batch):
    """A gradient function exported for symbols, of leaves: the type of a tree in a program is another matter."""
    params, example, h_0 = make_problem(case)
    last = time if case.last == "all" else 1

    def shaped(x, *leading):
        return None if x is None else jax.ShapeDtypeStruct((*leading, *x.shape[len(leading) :]), x.dtype)

    shapes = (
        jax.tree.map(shaped, params),
        rnn_jax.Batch(
            shaped(example.inputs, time, batch),
            shaped(example.targets, last, batch),
            shaped(example.weights, last, batch),
            shaped(example.mask, time, batch),
            shaped(example.reset, time, batch),
        ),
        tuple(shaped(h, batch) for h in h_0),
    )
    return jax.export.export(jax.jit(grad_fn_of(method, case, **options)))(*shapes)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("last", ["all", "one"])
@pytest.mark.parametrize("method", list(SYMBOLIC))
def test_a_gradient_exported_for_any_length_and_batch(method, last):
    """What the program computes for each length is what the method computes for it; shorter than a window, too."""
    case = Case(num_layers=2, last=last, mask=True, inputs="tokens" if method == "bptt" else "features")
    program = exported(method, case, SYMBOLIC[method], *jax.export.symbolic_shape("t, b"))
    for time, batch in ((5, 2), (1, 3)):
        case = case._replace(time=time, batch=(batch,))
        problem = make_problem(case)
        expected = run(method, case, problem, **SYMBOLIC[method])
        assert_trees_close(program.call(*problem), expected, rtol=1e-12, floor=1e-6)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_plans_exported_for_multiples_of_their_blocks():
    case, plan = Case(leak=0.3), rnn_jax.Plan(2, (4,))
    time, batch = jax.export.symbolic_shape("4*n, b")
    program = exported("blocked", case, {"plan": plan}, time, batch)
    case = case._replace(time=12)
    problem = make_problem(case)
    assert_trees_close(program.call(*problem), run("autodiff", case, problem), rtol=1e-12)
    time, batch = jax.export.symbolic_shape("t, b")
    with pytest.raises(ValueError, match="`plan` must cut t steps, t of them read, into equal blocks and segments"):
        exported("blocked", case, {"plan": plan}, time, batch)


def shapes_of(problem, time, batch):
    """The problem of `make_problem` with symbols for its numbers of steps and sequences."""
    params, example, h_0 = problem
    num_steps, num_sequences = example.inputs.shape[:2]
    last = time if example.targets.shape[0] == num_steps else example.targets.shape[0]

    def with_symbols(x, *sizes):
        return None if x is None else jax.ShapeDtypeStruct((*sizes, *x.shape[len(sizes) :]), x.dtype)

    steps = {name: with_symbols(getattr(example, name), time, batch) for name in ("inputs", "mask", "reset")}
    read = {name: with_symbols(getattr(example, name), last, batch) for name in ("targets", "weights")}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    return shapes, rnn_jax.Batch(**steps, **read), tuple(with_symbols(h, batch) for h in h_0)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize(
    "case",
    [Case(num_layers=2), Case(mask=True, reset=True, inputs="tokens"), Case(last="one", leak=0.3)],
    ids=["stack", "flags", "last"],
)
@pytest.mark.parametrize("options", [{}, {"lags": 4}, {"k1": 3, "k2": 4}, {"lags": 2, "k1": 2, "k2": 20}], ids=str)
def test_the_anatomy_exported_for_any_length_and_batch(case, options):
    """Of sequences shorter than the lags the lags past their length are zero."""
    look = jax.jit(partial(analysis.anatomy, **options))
    program = jax.export.export(look)(*shapes_of(make_problem(case), *jax.export.symbolic_shape("t, b")))
    for time, batch in ((7, 3), (2, 1)):
        problem = make_problem(case._replace(time=time, batch=(batch,)))
        expected, found = look(*problem), program.call(*problem)
        grids = [np.asarray(grid) for grid in found.lag_norms]
        num = min(options.get("lags", 0), time) + 1
        assert all(len(grid) == options.get("lags", 0) + 1 and not grid[num:].any() for grid in grids)
        found = found._replace(lag_norms=tuple(jnp.asarray(grid[:num]) for grid in grids))
        if num < 3:  # the rate of fewer than two lags is None
            found, expected = (x._replace(decay=None, decay_error=None) for x in (found, expected))
        found, expected = (jax.tree.map(jnp.nan_to_num, x) for x in (found, expected))  # an error that is infinite
        if found.cut is not None:  # where nothing is lost, rounding is
            found, expected = (x._replace(cut=jax.tree.map(lambda x: 1 + x, x.cut)) for x in (found, expected))
        assert_trees_close(found, expected, rtol=1e-9, floor=1e-9)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_what_needs_some_steps_is_exported_with_that_constraint():
    """And says which, if the symbols lack it."""
    params, example, h_0 = make_problem(Case(time=30))
    part = example._replace(targets=example.targets[-4:])
    key, xs, tokens = jax.random.key(0), example.inputs, jnp.zeros((30, 3), int)
    of_tokens = rnn_jax.init_params(key, input_size=5, hidden_size=4, output_size=5, dtype=xs.dtype)
    jacobians = rnn_jax.dynamics.step_jacobians(params.cells[0], h_0[0][0], xs[:, 0])
    alone = tuple(h[0] for h in h_0)
    for least, name, call, args in (
        (13, "xs", lambda p, x: rnn_jax.dynamics.lyapunov_exponents(key, p, alone, x, skip=3), (params, xs[:, 0])),
        (4, "xs", lambda p, x: rnn_jax.dynamics.flossing(key, p, alone, x, num=2, skip=3), (params, xs[:, 0])),
        (6, "jacobians", lambda js: rnn_jax.dynamics.log_singular_values(js, [2, 6]), (jacobians,)),
        (3, "inputs", lambda p, x: rnn_jax.apply(p, h_0, x, last=3), (params, xs)),
        (2, "prompt", lambda p, x: rnn_jax.generate(key, p, x, 5), (of_tokens, tokens)),
        (7, "streams", lambda x: rnn_jax.data.window_batch(x, 1, 5), (tokens,)),
        (4, "batch.inputs", lambda p, x: analysis.step_gradients(p, part._replace(inputs=x), h_0), (params, xs)),
    ):  # fmt: skip

        def export(constraint, call=call, args=args):
            (time,) = jax.export.symbolic_shape("t", constraints=constraint)
            *others, last = args
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), others)
            return jax.export.export(jax.jit(call))(*shapes, jax.ShapeDtypeStruct((time, *last.shape[1:]), last.dtype))

        sentence = f"`{name}` must be known to have at least {least} steps, got t: export it for symbols with this"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            export([f"t >= {least - 1}"])
        assert_trees_close(export([f"t >= {least}"]).call(*args), jax.jit(call)(*args), rtol=1e-9, floor=1e-9)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("truncation_report", lambda x: analysis.truncation_report(*make_problem(Case())[:2], (x,), [1])),
        ("fixed_points", lambda x: rnn_jax.dynamics.fixed_points(make_problem(Case())[0], (x,))),
        ("make_streams", lambda x: rnn_jax.data.make_streams(x[0], 1)),
        ("decode", lambda x: rnn_jax.data.decode("ab", x[0])),
        ("pack_sequences", lambda x: rnn_jax.data.pack_sequences([x], [x])),
        ("pad_sequences", lambda x: rnn_jax.data.pad_sequences([x], [x])),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_what_reads_values_says_so_under_jit(name, call):
    with pytest.raises(TypeError, match=f"`{name}` reads values, which are not there under jit, vmap or grad"):
        jax.jit(call)(jnp.zeros((3, 4)))


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
def test_what_cannot_be_exported_for_any_length_says_so():
    time, batch = jax.export.symbolic_shape("t, b")
    with pytest.raises(ValueError, match="'last_steps' must know how many steps there are, got t, t of them read"):
        exported("last_steps", Case(), {"k": 3}, time, batch)
    expected = run("last_steps", Case(), make_problem(Case()), k=3)
    assert_trees_close(
        exported("last_steps", Case(), {"k": 3}, 7, batch).call(*make_problem(Case())), expected, rtol=1e-12
    )
    params, example, h_0 = make_problem(Case())
    inputs = jax.ShapeDtypeStruct((time, 3, *example.inputs.shape[2:]), example.inputs.dtype)
    targets = jax.ShapeDtypeStruct((time, 3), example.targets.dtype)
    with pytest.raises(ValueError, match="`shapes` must be made of numbers, got the symbols t."):
        rnn_jax.plan_cost((params, rnn_jax.Batch(inputs, targets), h_0))


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("text", ["t, b", "t, 3", "40, b"])
def test_the_derivative_of_the_unroll_with_flags_exported_for_any_length_and_batch(text):
    """And a program that makes its own first state, of a batch whose size is a symbol."""
    (cell, _, xs), _, _ = problem_of("plain")
    time, batch = jax.export.symbolic_shape(text)

    def gradient(cell, xs, mask, reset):
        params = rnn_jax.Params((cell,), rnn_jax.ReadoutParams(jnp.ones((cell.w_hh.shape[0], 1)), jnp.ones(1)))
        (h_0,) = rnn_jax.zero_state(params, xs.shape[1])
        mask &= rnn_jax.data.lengths_to_mask(jnp.sum(mask, 0), xs.shape[0])
        loss = lambda cell, xs: jnp.sum(unroll_bptt(cell, h_0, xs, mask=mask, reset=reset) ** 2)  # noqa: E731
        return jax.grad(loss, (0, 1))(cell, xs)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), cell)
    flags = [jax.ShapeDtypeStruct((time, batch), bool)] * 2
    program = jax.export.export(jax.jit(gradient))(
        shapes, jax.ShapeDtypeStruct((time, batch, xs.shape[2]), xs.dtype), *flags
    )
    steps = tuple(given if isinstance(given, int) else 5 for given in (time, batch))
    rng = np.random.default_rng(0)
    args = cell, rng.normal(size=(*steps, xs.shape[2])), rng.random(steps) < 0.8, rng.random(steps) < 0.2
    assert_trees_close(program.call(*args), jax.jit(gradient)(*args), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("method", ["bptt", "blocked"])
def test_steps_of_a_turn_are_one_where_their_number_is_a_symbol(method):
    case = Case()
    program = exported(method, case, {"unroll": 4}, *jax.export.symbolic_shape("t, b"))
    problem = make_problem(case)
    assert_trees_close(program.call(*problem), run("autodiff", case, problem), rtol=1e-12)


@pytest.mark.usefixtures("annotations_unchecked")  # they say that sizes are numbers
@pytest.mark.parametrize("text", ["t, b", "t, 3", "40, b"])
def test_the_derivative_of_the_unroll_exported_for_any_length_and_batch(text):
    (cell, h_0, xs), _, _ = problem_of("plain")
    time, batch = jax.export.symbolic_shape(text)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), cell)
    sizes = (
        jax.ShapeDtypeStruct((batch, *h_0.shape[1:]), h_0.dtype),
        jax.ShapeDtypeStruct((time, batch, xs.shape[2]), xs.dtype),
    )
    program = jax.export.export(jax.jit(jax.grad(loss_of(unroll_bptt, {}), ALL)))(shapes, *sizes)
    num_steps, num_sequences = (given if isinstance(given, int) else 5 for given in (time, batch))
    primals = cell, np.ones((num_sequences, *h_0.shape[1:])), np.ones((num_steps, num_sequences, xs.shape[2]))
    assert_trees_close(program.call(*primals), by_numpy(jax.grad(loss_of(unroll, {}), ALL))(*primals), rtol=1e-12)


def test_vmap_over_sequences_builds_one_weight_gradient():
    """The mapped axis joins the batch: no product in the program makes a weight gradient for each sequence."""
    (cell, h_0, xs), _, _ = problem_of("plain")

    def loss(cell):
        return jnp.sum(over_sequences(lambda h, x: unroll_bptt(cell, h, x), h_0, xs) ** 2)

    program = jax.jit(jax.grad(loss)).lower(cell).as_text()
    in_size, hid = cell.w_xh.shape
    sequences = h_0.shape[0]
    assert f"tensor<{in_size}x{hid}xf64>" in program
    assert f"tensor<{sequences}x{in_size}x{hid}xf64>" not in program
    assert f"tensor<{sequences}x{hid}x{hid}xf64>" not in program


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


@pytest.mark.parametrize("block", [1, 3, 4, 7])
@pytest.mark.parametrize("name", CASES)
def test_weight_gradients_in_blocks_of_steps(name, block, monkeypatch):
    """Long sequences have their products made in blocks: seven steps in blocks of 3 are 1 and 3 and 3."""
    monkeypatch.setattr(_bptt, "rows_block", lambda time, num_sequences: block)
    params, batch, h_0 = make_problem(CASES[name]._replace(time=7))
    flags = {"mask": batch.mask, "reset": batch.reset}
    args = params.cells[0], h_0[0], batch.inputs
    argnums = ALL[:2] if name == "tokens" else ALL
    expected = by_numpy(jax.grad(loss_of(unroll, flags), argnums))(*args)
    assert_trees_close(by_numpy(jax.grad(loss_of(unroll_bptt, flags), argnums))(*args), expected, rtol=1e-12)
