"""All seeds of one setting, trained by one compiled program on all devices."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key

from .. import Batch, Params, make_trainer, zero_state
from .._checks import steps_shape
from .._require import require_sizes
from ..typing import GradFn, TrainState

SMALL = 2**14  # batch · hidden²; below it, the iterations of a loop over seeds cost more than its products
OWN_METRICS = {"solved", "finite", "train_loss", "grad_norm"}
Metrics = dict[str, Array]


def never(metrics: Metrics) -> Array:
    """Never solved, so that every training makes all its steps."""
    return jnp.zeros((), bool)


class Training(NamedTuple):
    """How each seed of a setting is trained. All functions except `facts` are pure, and are compiled.

    Attributes:
        init: `init(key) -> Params` draws the initial weights.
        batch: `batch(key, step) -> Batch` makes the batch of a step; `step` counts from 0.
        grad_fn: computes the loss and the gradient, from `make_grad_fn`.
        optimizer: an optimizer of optax.
        evaluate: `evaluate(params) -> {name: number}` measures a network, before training and after every `eval_every`
            steps. One of the names must be "loss", a number of at least 0.
        num_steps: the number of updates, a multiple of `eval_every`.
        eval_every: the number of updates from one evaluation to the next.
        chance: the loss of the best answer that ignores the inputs. For many sequences, that is the best table over
            steps; for one long series, the best constant.
        solved: `solved(metrics) -> bool` says if the numbers of `evaluate` count as solved. Training ends early when
            it has held once for every seed.
        keep_state: if True, each step starts from the state that the last step ended in; otherwise from zero.
        float64: if True, the training runs in float64.
        show: `show(params) -> {name: array}`: arrays of each trained network to keep, for the pictures.
        facts: `facts(params) -> {name: number}`: numbers that belong to the setting, such as times. It is called once,
            with the network of the first seed, and is not compiled.
    """

    init: Callable[[Key[Array, ""]], Params]
    batch: Callable[[Key[Array, ""], Array], Batch]
    grad_fn: GradFn
    optimizer: optax.GradientTransformation
    evaluate: Callable[[Params], Metrics]
    num_steps: int
    eval_every: int
    chance: float = math.inf
    solved: Callable[[Metrics], Array] = never
    keep_state: bool = False
    float64: bool = False
    show: Callable[[Params], dict[str, Array]] | None = None
    facts: Callable[[Params], dict[str, float]] | None = None


class Chunk(NamedTuple):
    """The metrics after `step` steps: each is an array with one number per seed."""

    step: int
    metrics: dict[str, np.ndarray]
    seconds: float  # of training since the last chunk, with evaluation, without compiling


class Program(NamedTuple):
    """The lowered functions of a training for the keys of several seeds, and a digest that identifies them."""

    begin: Any
    advance: Any
    show: Any
    keys: Array
    metrics: frozenset[str]
    digest: str


def make_program(training: Training, seeds: Sequence[int]) -> Program:
    """Lower a training. `digest` covers the whole program and the numbers in it: equal digests mean equal runs."""
    if not isinstance(training, Training):
        raise TypeError(f"`make` must return a Training, got {type(training).__name__}.")
    require_sizes(num_steps=training.num_steps, eval_every=training.eval_every)
    if training.num_steps % training.eval_every:
        raise ValueError(
            f"`num_steps` must be a multiple of `eval_every`, got {training.num_steps} and {training.eval_every}."
        )
    devices = jax.devices()[: len(seeds)]
    mesh = Mesh(np.array(devices), ("seeds",))
    padded = [*seeds, *[seeds[-1]] * (-len(seeds) % len(devices))]
    keys = jax.vmap(jax.random.key)(jnp.asarray(padded, jnp.uint32))
    trainer = make_trainer(training.grad_fn, training.optimizer, carry=training.keep_state)

    def begin(key: Array) -> tuple[TrainState, Metrics]:
        params = training.init(jax.random.split(key)[0])
        return trainer.init(params, zero_state(params, *_steps(training)[1:])), _evaluated(training, params)

    def advance(state: TrainState, key: Array) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, _: None) -> tuple[TrainState, Any]:
            now = jax.random.fold_in(jax.random.split(key)[1], state.num_steps)
            return trainer.step(state, training.batch(now, state.num_steps))

        state, infos = lax.scan(step, state, length=training.eval_every)
        leaves = [*jax.tree.leaves(state.params), infos.loss]
        metrics = _evaluated(training, state.params) | {
            "train_loss": jnp.mean(infos.loss),
            "grad_norm": jnp.mean(infos.grad_norm),
            "finite": jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])),
        }
        return state, metrics

    def over_seeds(fn: Callable[..., Any]) -> Any:
        """Divide the seeds among devices. A CPU trains its seeds one after the other, unless the network is tiny."""
        together = devices[0].platform != "cpu" or _products(training) < SMALL
        many = jax.vmap(fn) if together else lambda *args: lax.map(lambda one: fn(*one), args)
        return jax.jit(jax.shard_map(many, mesh=mesh, in_specs=P("seeds"), out_specs=P("seeds"), check_vma=False))

    state, _ = jax.eval_shape(over_seeds(begin), keys)
    metrics = frozenset(jax.eval_shape(over_seeds(advance), state, keys)[1])
    lowered = over_seeds(begin).lower(keys), over_seeds(advance).lower(state, keys)
    show = None if training.show is None else over_seeds(training.show).lower(state.params)
    text = "".join(part.as_text() for part in (*lowered, show) if part is not None)
    return Program(*lowered, show, keys, metrics, hashlib.sha256(text.encode()).hexdigest())


def _evaluated(training: Training, params: Params) -> Metrics:
    metrics = training.evaluate(params)
    if not isinstance(metrics, dict) or "loss" not in metrics:
        raise ValueError(f'`evaluate` must return a dict of numbers with "loss" in it, got {metrics!r}.')
    for name, value in metrics.items():
        if jnp.shape(value) != ():
            raise ValueError(f"`evaluate` must return numbers, got {name!r} of shape {jnp.shape(value)}.")
    taken = OWN_METRICS & metrics.keys()
    if taken:
        raise ValueError(f"`evaluate` must not use the names {', '.join(sorted(OWN_METRICS))}, got {sorted(taken)}.")
    return metrics | {"solved": jnp.asarray(training.solved(metrics), bool)}


def _steps(training: Training) -> tuple[int, ...]:
    """`(time, *batch)` of a batch."""

    def zeros(key: Key[Array, ""]) -> Array:
        return jnp.zeros(steps_shape(training.batch(key, jnp.zeros((), jnp.int32)).inputs))

    shape: tuple[int, ...] = jax.eval_shape(zeros, jax.random.key(0)).shape
    return shape


def _products(training: Training) -> int:
    """The multiplications of one product with `W_hh` in the widest layer: `batch · hidden²`."""
    params = jax.eval_shape(training.init, jax.random.key(0))
    widest: int = max(cell.w_hh.shape[0] for cell in params.cells)
    return math.prod(_steps(training)[1:]) * widest**2


def work(training: Training) -> float:
    """About how many multiplications the training of one seed takes. The progress bar counts these."""
    return float(training.num_steps * _steps(training)[0] * _products(training))


def train(training: Training, program: Program, num_seeds: int) -> Iterator[tuple[Chunk, Params]]:
    """Train. Yield metrics and parameters of all seeds at the start and after every `eval_every` steps.

    Ends before `num_steps` when every seed has solved the task or has a number that is not finite.
    """

    def chunk(step: int, metrics: Metrics, seconds: float) -> Chunk:
        arrays = {name: np.asarray(value)[:num_seeds] for name, value in jax.device_get(metrics).items()}
        return Chunk(step, arrays, seconds)

    begin, advance = program.begin.compile(), program.advance.compile()
    state, metrics = begin(program.keys)
    first = chunk(0, metrics, 0.0)
    done = first.metrics["solved"].copy()
    yield first, state.params
    step = 0
    while step < training.num_steps and not done.all():
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(advance(state, program.keys))
        step += training.eval_every
        now = chunk(step, metrics, time.perf_counter() - start)
        done |= now.metrics["solved"] | ~now.metrics["finite"]
        yield now, state.params
