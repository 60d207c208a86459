"""The cells of flax, equinox, haiku and Keras, from their weights: the same values and gradients.

The numbers of each library are in files that tests/golden/make_gated_golden.py makes. Where a library is installed, a
test computes them again.
"""

import functools
import math

import jax
import jax.numpy as jnp
import make_gated_golden as script
import numpy as np
import pytest
from by_numpy import by_numpy
from conversions import CARRY, CONVERT, by_methods, carry_of, nested, of_both_sums, state_of
from problems import EXACT, assert_trees_close

import rnn_jax

MODULES = {"linen": "flax", "nnx": "flax", "equinox": "equinox", "haiku": "haiku", "keras": "keras"}
CASES = [(library, cell) for library, cells in script.CELLS.items() for cell in cells]
UNROLLS = {"unroll": rnn_jax.unroll, "unroll_bptt": rnn_jax.unroll_bptt}

load = functools.cache(script.load)


def computed(library, cell, call=by_numpy, convert=None, order=None):
    """Values and gradients by each way of ours, all in one program; and the tree that is expected."""
    tree = nested(load(library), cell)
    problem, factors = tree.pop("problem"), tree.pop("factors")
    convert, order, parts = convert or CONVERT[library], order or CARRY[library], script.PARTS[cell]

    def run(unroll, problem):
        states = unroll(convert(problem["weights"]), state_of(problem["carry"], order), problem["inputs"])
        return states[..., : script.HID], carry_of(states[-1], order, parts)

    @call
    def ours(problem, factors):
        unrolled = {name: of_both_sums(functools.partial(run, fn), problem, factors) for name, fn in UNROLLS.items()}
        methods = by_methods(EXACT, lambda w: (convert(w),), lambda s: (state_of(s, order),), problem, factors)
        return unrolled, methods

    first = jax.tree.map(lambda d: d[0], tree["gradients"])
    return ours(problem, factors), (dict.fromkeys(UNROLLS, tree), dict.fromkeys(EXACT, first))


@pytest.mark.parametrize("library, cell", CASES)
def test_as_the_library(library, cell):
    """Outputs, last carry, and the gradients by each of their weights, their carry and the inputs."""
    assert_trees_close(*computed(library, cell), rtol=1e-12)


@pytest.mark.parametrize("library, cell", [("linen", "lstm"), ("keras", "gru")])
def test_compiled_by_xla_it_is_the_same(library, cell):
    assert_trees_close(*computed(library, cell, jax.jit), rtol=1e-12)


@pytest.mark.parametrize("library", MODULES)
def test_the_file_is_what_the_library_computes(library):
    pytest.importorskip(MODULES[library])
    fresh = script.golden(library)
    del fresh["versions"]
    assert_trees_close(fresh, load(library), rtol=1e-12)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_tanh_of_keras_has_float32(cell):
    """On JAX, in a layer of float64 too: with it, Keras agrees to seven digits."""
    pytest.importorskip("keras")
    tree = nested(load("keras"), cell)
    _, call = script.make("keras", cell, activation="tanh")
    carry = tuple(map(jnp.asarray, tree["problem"]["carry"].values()))
    ys, _ = call(tree["problem"]["weights"], tree["problem"]["inputs"], carry if cell == "lstm" else carry[0])
    assert 1e-12 < np.max(np.abs(ys - tree["ys"])) < 1e-6


@pytest.mark.parametrize("library, cell", CASES)
def test_the_problem_is_not_vacuous(library, cell):
    """The last output depends on the first input, and the last carry is in the second gradient only."""
    tree = jax.tree.map(jnp.asarray, nested(load(library), cell))
    convert, order = CONVERT[library], CARRY[library]
    s_0 = state_of(tree["problem"]["carry"], order)

    def last(xs):
        return jnp.sum(rnn_jax.unroll_bptt(convert(tree["problem"]["weights"]), s_0, xs)[-1])

    d_xs = by_numpy(jax.grad(last))(tree["problem"]["inputs"])
    assert np.linalg.norm(d_xs[0]) > 0.01 * np.linalg.norm(d_xs[-1])
    assert all(np.any(np.abs(d[1] - d[0]) > 1e-3) for d in jax.tree.leaves(tree["gradients"]))


@pytest.mark.parametrize("library, order", [("linen", "hc"), ("nnx", "hc"), ("equinox", "ch"), ("keras", "ch")])
def test_a_carry_in_the_wrong_order_is_seen(library, order):
    with pytest.raises(AssertionError, match=r"\['ys'\]|\['last'\]|\['gradients'\]"):
        assert_trees_close(*computed(library, "lstm", order=order), rtol=1e-12)


@pytest.mark.parametrize("forget", [0.0, 2.0])
def test_the_forget_bias_of_haiku_counts_once(forget):
    """Left out, or added twice: as when a bias of 1 is drawn, as in `init_params`, and haiku's 1 is added to it."""

    def convert(w):
        cell = CONVERT["haiku"](w)
        return cell.replace(b_h=cell.b_h + jnp.repeat(jnp.array([0.0, forget - 1, 0.0, 0.0]), script.HID))

    (unrolled, _), (expected, _) = computed("haiku", "lstm", convert=convert)
    assert np.max(np.abs(unrolled["unroll"]["ys"] - expected["unroll"]["ys"])) > 0.05


FORGET = {"linen": 0.0, "nnx": 0.0, "haiku": 1.0, "keras": 1.0}


@pytest.mark.parametrize("library", FORGET)
def test_the_forget_bias_of_a_fresh_cell(library):
    """What the forget gate starts with. In haiku's weights it is not seen: they are zero."""
    pytest.importorskip(MODULES[library])
    weights, _ = script.make(library, "lstm")
    assert library != "haiku" or not np.any(weights["lstm/linear/b"])
    b_h = CONVERT[library](weights).b_h
    np.testing.assert_array_equal(b_h, np.repeat([0.0, FORGET[library], 0.0, 0.0], script.HID))
    ours = rnn_jax.init_params(jax.random.key(0), cell="lstm", input_size=3, hidden_size=script.HID, output_size=2)
    np.testing.assert_array_equal(ours.cells[0].b_h, np.repeat([0.0, 1.0, 0.0, 0.0], script.HID))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_biases_of_a_fresh_equinox_cell_are_random(cell):
    """None is zero, and no forget gate starts with 1."""
    pytest.importorskip("equinox")
    weights, _ = script.make("equinox", cell)
    own = [weights["bias"], *([weights["bias_n"]] if cell == "gru" else [])]
    assert all(np.all(b != 0) and np.all(np.abs(b) <= 1 / math.sqrt(script.HID)) for b in own)


@pytest.mark.parametrize("diagonal", [True, False])
def test_the_gru_of_haiku_resets_before_the_product(diagonal):
    """`(r ∘ h) W` is our `r ∘ (h W)` only where W is diagonal: in general it has no weights of ours."""
    hk = pytest.importorskip("haiku")
    rng, hid = np.random.default_rng(2), script.HID
    net = hk.without_apply_rng(hk.transform(lambda xs, h_0: hk.dynamic_unroll(hk.GRU(hid), xs, h_0)[0]))
    w = {"w_i": rng.normal(size=(3, 3 * hid)), "w_h": rng.normal(size=(hid, 3 * hid)), "b": rng.normal(size=3 * hid)}
    if diagonal:
        w["w_h"][:, 2 * hid :] = np.diag(rng.normal(size=hid))
    w, xs, h_0 = jax.tree.map(jnp.asarray, (w, rng.normal(size=(5, 2, 3)), rng.normal(size=(2, hid))))
    z, r, n = (slice(i * hid, (i + 1) * hid) for i in range(3))
    theirs = net.apply({"gru": w}, xs, h_0)
    # their z lets the new value in, and our k keeps the old one: k = 1 - z, so the sign of its weights changes
    w_xh, w_hh, b_h = (jnp.concatenate([x[..., r], -x[..., z], x[..., n]], -1) for x in (w["w_i"], w["w_h"], w["b"]))
    ours = rnn_jax.unroll(rnn_jax.GRUParams(w_xh, w_hh, b_h, jnp.zeros(hid)), h_0, xs)
    assert (np.max(np.abs(ours - theirs)) < 1e-12) == diagonal
