"""`rnn-jax train` learns with every choice of its options; if a run does not learn, it says so and what to try."""

import itertools
import json
import typing

import pytest
from commands import REAL_TEXT, command, metrics

import rnn_jax
from rnn_jax._cli.settings.training import TrainConfig
from rnn_jax._cli.training import advice

pytestmark = pytest.mark.usefixtures("undrawn")


def test_the_choices_are_the_library_s():
    """The settings import no jax, so they repeat the names of three tables."""
    hints = typing.get_type_hints(TrainConfig)
    exact = [name for name, method in rnn_jax.GRADIENTS.items() if method.exact]
    assert list(typing.get_args(hints["method"])) == exact  # the others are chosen by what they need: --k1, --k2, …
    assert typing.get_args(hints["activation"]) == tuple(rnn_jax._cells.activations.ACTIVATIONS)
    assert typing.get_args(hints["recurrent_init"]) == tuple(rnn_jax.initializers.RECURRENT_INITS)


def choices():
    """The choices of each option that has a list of choices."""
    hints = typing.get_type_hints(TrainConfig)
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}


def chosen(**values):
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]


LEARNS = ["--hidden-size", 48, "--streams", 16, "--window", 20, "--steps", 300, "--eval-every", 300]
NUMBERS = {  # of the options without choices, one that is not the default
    "leak": 0.5, "num_layers": 2, "drop_between": 0.1, "drop_recurrent": 0.1, "max_value": 0.1, "momentum": 0.5,
}  # fmt: skip


def assert_it_learns(cwd, *options):
    """It beats the unigram on the text it reads, and nothing is wrong with it."""
    result = command("train", REAL_TEXT, "--run", "run", "--overwrite", *LEARNS, *options, cwd=cwd)
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
    unigram = json.loads((cwd / "run" / "settings.json").read_text())["baselines"]["unigram"]
    assert metrics(cwd / "run")[-1]["validation_bits"] < unigram


@pytest.mark.parametrize("row", range(max(map(len, choices().values()))))
def test_every_choice_of_every_option_learns(tmp_path, row):
    """Each in one of a few rows; alone and in pairs in the test below."""
    values = {name: known[row % len(known)] for name, known in choices().items()}
    if values["cell"] != "vanilla":
        del values["activation"]  # gates have their own
    assert_it_learns(tmp_path, *chosen(**values))


@pytest.mark.thorough
def test_every_choice_alone_and_the_main_ones_together_learn(tmp_path):
    for name, known in choices().items():
        for value in known:
            assert_it_learns(tmp_path, *chosen(**{name: value}))
    for name, value in NUMBERS.items():
        assert_it_learns(tmp_path, *chosen(**{name: value}))
    assert_it_learns(tmp_path, "--k1", 5, "--k2", 10)
    assert_it_learns(tmp_path, "--k1", 5, "--adaptive-bias", 0.1)
    names = ("activation", "recurrent_init", "optimizer")
    for values in itertools.product(*(choices()[name] for name in names)):
        assert_it_learns(tmp_path, *chosen(**dict(zip(names, values, strict=True))))


WRONG = {
    "large weights": (["--recurrent-init", "normal", "--recurrent-scale", 16], "--recurrent-scale 1."),
    "a large rate": (["--learning-rate", 300], "--learning-rate 0.25."),
    "nothing clipped": (["--activation", "relu", "--max-norm", "None"], "--max-norm 1."),
}


@pytest.mark.parametrize(
    "label", [*list(WRONG)[:1], *(pytest.param(x, marks=pytest.mark.thorough) for x in list(WRONG)[1:])]
)
def test_a_run_that_does_not_learn_is_told_so_and_what_it_should_try_helps(tmp_path, label):
    options, tried = WRONG[label]
    result = command("train", REAL_TEXT, "--run", "run", *LEARNS, *options, cwd=tmp_path)
    assert f"Train again with {tried}" in result.stderr, result.stderr
    assert_it_learns(tmp_path, *options, *tried.rstrip(".").split())


def test_what_is_wrong_with_a_run():
    """Nothing yet, it explodes, it is worse than guessing, it has learned the text by heart."""

    def told(bits=2.0, norm=1.0, held_out=3.0, step=300, **settings):
        records = [{"step": step, "bits": bits, "grad_norm": norm}, {"step": step, "validation_bits": held_out}]
        return advice.what_is_wrong(TrainConfig(**settings), records, 64)

    assert told() is None and told(bits=9.0, step=25) is None
    assert told(bits=13.0, step=25).startswith("the loss is 13.00 bits")
    assert told(norm=2e6, max_norm=None) == (
        "the gradient explodes: its norm is 2e+06 before clipping. Train again with --max-norm 1."
    )
    assert told(bits=6.1) == (
        "the loss is 6.10 bits, above the 6.00 of uniform guessing. Train again with --learning-rate 0.025."
    )
    assert told(bits=6.1, max_norm=1e-20).endswith("Train again with --max-norm 1.")
    assert told(bits=6.1, max_value=1e-10).endswith("Train again with --max-value None.")
    assert told(bits=5.5, held_out=6.5, momentum=0.9999) == (
        "the held-out text costs 6.50 bits, above the 6.00 of guessing. Train again with --momentum 0.9."
    )
    assert "costs 7.00 bits" in told(held_out=7.0) and "memorises it" in told(held_out=7.0)
