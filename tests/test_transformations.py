"""Every transformation of JAX on `unroll_bptt`, in float64, compared with the plain scan: `docs/transformations.md`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_numpy import by_numpy
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from layer_problems import ALL, loss_of, over_sequences, problem_of
from problems import Case, assert_trees_close, make_problem

import rnn_jax
from rnn_jax import analysis, unroll, unroll_bptt


def ensemble(tree):
    """Three members along a new first axis."""
    return jax.tree.map(
        lambda x: jnp.stack([x, -0.5 * x, 0.7 * x]) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def dot(tree, other):
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


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
    """A transformation applied to an unroll, as a function of primals and tangents."""
    _, _, flags = problem_of(case)
    return lambda p, t: TRANSFORMATIONS[name](lambda *p: unroll_fn(*p, **flags), loss_of(unroll_fn, flags), p, t)


def both(name, case, call=by_numpy):
    """A transformation applied to `unroll_bptt` and to `unroll`, in one program."""
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
    with pytest.raises(TypeError, match=f"`{name}` reads values, which do not exist under jit, vmap or grad"):
        jax.jit(call)(jnp.zeros((3, 4)))
