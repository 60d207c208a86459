"""Experiments that train in a moment, and results like those that they write."""

import functools

import jax
import numpy as np
import optax

import rnn_jax
from rnn_jax import experiments
from rnn_jax.experiments._training import make_program
from rnn_jax.experiments._trials import Trial

TASK, SIZES = rnn_jax.tasks.TASKS["parity"], {"time": 6}


def small(rate=0.1, *, num_steps=6, batch_size=3, **options):
    sizes = experiments.sizes_of(TASK, SIZES, 5)
    settings = {"num_steps": num_steps, "eval_every": 2, "batch_size": batch_size, "num_tested": 4, "float64": True}
    return experiments.on_task(TASK, SIZES, experiments.orthogonal_tanh(sizes), optax.sgd(rate), **settings | options)


of_rate = functools.cache(small)  # one training, one program and one result for each of these numbers


@functools.cache
def program_of(of, seeds):
    with jax.enable_x64(of.float64):
        return make_program(of, list(seeds))


def same(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a.setting, a.seeds) == (b.setting, b.seeds)
        np.testing.assert_array_equal(a.steps, b.steps)
        for name in a.curves:
            np.testing.assert_array_equal(a.curves[name], b.curves[name])


def trial_of(losses, solved=None, finite=None, chance=1.0):
    losses = np.asarray(losses, float)
    flags = [np.zeros_like(losses) if x is None else np.asarray(x, float) for x in (solved, finite)]
    finite = np.isfinite(losses).astype(float) if finite is None else flags[1]
    curves = {"loss": losses, "solved": flags[0], "finite": finite}
    steps = np.arange(len(losses)) * 10
    return Trial({"k": 1}, list(range(losses.shape[1])), chance, steps, curves, 8.0, 1.0, {}, {"ms": 2.0})
