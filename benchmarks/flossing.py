"""Gradient flossing on delayed XOR: how far back a vanilla network learns to look, with and without it.

    python benchmarks/flossing.py            # prints the tables, in 17 minutes on two busy CPU cores
    python benchmarks/flossing.py --quick    # fewer steps, seeds, delays and contenders, in a minute
    python benchmarks/flossing.py --save     # and keeps them in benchmarks/results/flossing.json, with a picture

The task: at each step comes a fair bit x_t, 0 or 1, and after the first d steps the network says, at each step,
`x_{t-d} XOR x_{t-d/2}`. Neither bit alone tells anything: who remembers less than d steps is right half of the time.
The network is one layer of tanh units. Of all contenders a seed has the same batches. They start from

    normal                    normal weights of variance gain² / hid, and input weights of variance one
    flossed before            the same, after steps of Adam on `rnn_jax.dynamics.flossing`
    flossed before, during    and a few more of them before each of equal parts of the training
    orthogonal                an orthogonal matrix and input weights ten times smaller: exponents near zero at once
    orthogonal, flossed       the same, flossed before

Each trains with the learning rate that served it best on `tuning_delays`, on seeds of their own; the third has the
rate of the second. All make as many steps on the task: those of flossing come on top.

References: Engelken (2023), NeurIPS, arXiv:2312.17306.
"""

import argparse
import dataclasses
import json
import os
import platform
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads of a QR of 64 rows wait for each other: ten times slower

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import rnn_jax

RESULTS = Path(__file__).parent / "results" / "flossing.json"
SOLVED = 0.95
BEFORE, DURING = "flossed before", "flossed before, during"
STYLES = {  # colour, marker, dashes
    "normal": ("C0", "o", "-"),
    BEFORE: ("C1", "s", "-"),
    DURING: ("C3", "D", "-"),
    "orthogonal": ("C7", "^", "--"),
    "orthogonal, flossed": ("C2", "v", "--"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the network, its training and its flossing."""

    hidden_size: int = 64
    gain: float = 1.0
    small_inputs: float = 0.1  # what the input weights of the orthogonal start are multiplied by
    batch_size: int = 16  # sequences, each of twice as many steps as the delay
    num_steps: int = 2000  # of training
    max_norm: float = 0.1  # of a gradient
    delays: tuple[int, ...] = (10, 20, 30, 40, 50)
    num_seeds: int = 6
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    tuning_delays: tuple[int, ...] = (16, 32)
    num_tuning_seeds: int = 3
    floss_num: int = 48  # exponents
    floss_steps: int = 300  # of Adam before training
    floss_rate: float = 3e-3
    floss_length: int = 60  # steps of the one sequence along which the exponents are measured
    floss_skip: int = 10  # of them do not count
    num_episodes: int = 4  # of flossing, before as many equal parts of the training
    episode_steps: int = 50


QUICK = Settings(num_steps=1000, delays=(10, 20), num_seeds=3, rates=(1e-3,), floss_steps=100, num_episodes=0)


def inputs_of(bits):
    """One feature a step, 0 or 1."""
    return bits.astype(float)[..., None]


def xor_batch(key, delay, num):
    """Bits `(2 delay, num)` and, at each step but the first `delay`, the XOR of two earlier ones."""
    bits = jax.random.bernoulli(key, 0.5, (2 * delay, num)).astype(int)
    half = delay // 2
    return rnn_jax.Batch(inputs_of(bits), bits[:-delay] ^ bits[delay - half : -half])


def start(settings, recurrent_init, input_scale, key):
    """Fresh parameters: one input, two classes."""
    sizes = {"input_size": 1, "hidden_size": settings.hidden_size, "output_size": 2}
    params = rnn_jax.init_params(key, recurrent_init=recurrent_init, **sizes)
    cell = params.cells[0]
    return params._replace(cells=(dataclasses.replace(cell, w_xh=input_scale * cell.w_xh),))


def descend(value_and_grad, optimizer, carry, key, num_steps):
    """`num_steps` steps from `carry`, parameters and state of the optimizer, down `value_and_grad(params, key)`."""

    def step(carry, key):
        params, state = carry
        _, gradient = value_and_grad(params, key)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    return lax.scan(step, carry, jax.random.split(key, num_steps))[0]


def floss(settings, num_steps, params, key):
    """`params` after steps of Adam on the flossing penalty, each along one new sequence of random bits."""

    def penalty(params, key):
        qkey, xkey = jax.random.split(key)
        xs = inputs_of(jax.random.bernoulli(xkey, 0.5, (settings.floss_length, 1)))
        h_0 = rnn_jax.zero_state(params, 1)
        return rnn_jax.dynamics.flossing(qkey, params, h_0, xs, num=settings.floss_num, skip=settings.floss_skip)

    optimizer = optax.adam(settings.floss_rate)
    carry = params, optimizer.init(params)
    return descend(jax.value_and_grad(penalty), optimizer, carry, key, num_steps)[0]


def train(settings, delay, num_episodes, params, key, rate):
    """`params` after `num_steps` of Adam on the task, and an episode of flossing before each of as many parts."""
    grad_fn = rnn_jax.make_grad_fn("blocked", loss="cross_entropy")
    optimizer = optax.chain(rnn_jax.clip_gradients(max_norm=settings.max_norm), optax.adam(rate))
    h_0 = rnn_jax.zero_state(params, settings.batch_size)
    num_parts = max(1, num_episodes)

    def value_and_grad(params, key):
        (loss, _), gradients = grad_fn(params, xor_batch(key, delay, settings.batch_size), h_0)
        return loss, gradients.params

    def part(carry, key):
        params, state = carry
        tkey, fkey = jax.random.split(key)
        if num_episodes:
            params = floss(settings, settings.episode_steps, params, fkey)
        return descend(value_and_grad, optimizer, (params, state), tkey, settings.num_steps // num_parts), None

    carry = params, optimizer.init(params)
    return lax.scan(part, carry, jax.random.split(key, num_parts))[0][0]


def accuracy(params, key, delay, num=256):
    """The share of right answers on sequences never seen."""
    batch = xor_batch(key, delay, num)
    ys, _ = rnn_jax.apply(params, rnn_jax.zero_state(params, num), batch.inputs, last=delay)
    return jnp.mean(jnp.argmax(ys, -1) == batch.targets)


@partial(jax.jit, static_argnums=(0, 1, 2))
def accuracies(settings, delay, num_episodes, params, keys, rate):
    """What each network of `params`, one a seed, is right in after training with `rate`."""

    def one(params, key):
        tkey, akey = jax.random.split(key)
        return accuracy(train(settings, delay, num_episodes, params, tkey, rate), akey, delay)

    return jax.vmap(one)(params, keys)


@jax.jit
def spectrum(params, keys):
    """All Lyapunov exponents under random bits, the mean over seeds."""

    def one(params, key):
        xs = inputs_of(jax.random.bernoulli(key, 0.5, (300, 1)))
        return rnn_jax.dynamics.lyapunov_exponents(key, params, rnn_jax.zero_state(params, 1), xs, skip=100).exponents[
            0
        ]

    return jnp.mean(jax.vmap(one)(params, keys), 0)


def contenders_of(settings, keys):
    """`{name: (params, num_episodes)}`, one network a key, and how long a flossing of all took in seconds."""
    fkeys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    normal = rnn_jax.initializers.normal(settings.gain / settings.hidden_size**0.5)
    plain = jax.vmap(partial(start, settings, normal, 1.0))(keys)
    orthogonal = jax.vmap(partial(start, settings, rnn_jax.initializers.orthogonal(), settings.small_inputs))(keys)
    many = jax.jit(jax.vmap(partial(floss, settings, settings.floss_steps))).lower(plain, fkeys).compile()
    begin = time.perf_counter()
    flossed = jax.block_until_ready(many(plain, fkeys))
    seconds = time.perf_counter() - begin
    contenders = {"normal": (plain, 0), BEFORE: (flossed, 0)}
    if settings.num_episodes:
        contenders[DURING] = (flossed, settings.num_episodes)
    contenders |= {"orthogonal": (orthogonal, 0), "orthogonal, flossed": (many(orthogonal, fkeys), 0)}
    return contenders, seconds


def tune(settings, contenders, keys):
    """The mean accuracy of each contender with each rate, at each of the delays for tuning."""
    if len(settings.rates) == 1:
        return {}
    found = {}
    for name, (params, num_episodes) in contenders.items():
        if not num_episodes:
            found[name] = {
                str(rate): [
                    round(float(jnp.mean(accuracies(settings, delay, 0, params, keys, rate))), 3)
                    for delay in settings.tuning_delays
                ]
                for rate in settings.rates
            }
            print(f"tuning  {name:24} {found[name]}", flush=True)
    return found


def best_rates(settings, contenders, tuning):
    """Of each contender the rate with the best mean over delays; flossed during training, that of flossed before."""

    def best(name):
        return max(settings.rates, key=lambda rate: sum(tuning[name][str(rate)]) if tuning else 0)

    return {name: best(BEFORE if name == DURING else name) for name in contenders}


def compete(settings, contenders, keys, rates):
    """`{name: {delay: {"accuracy": [a seed each], "seconds"}}}`, compiling included in the seconds."""
    found = {name: {} for name in contenders}
    for delay in settings.delays:
        for name, (params, num_episodes) in contenders.items():
            begin = time.perf_counter()
            values = np.asarray(accuracies(settings, delay, num_episodes, params, keys, rates[name])).tolist()
            seconds = round(time.perf_counter() - begin, 1)
            found[name][str(delay)] = {"accuracy": [round(v, 4) for v in values], "seconds": seconds}
            print(f"delay {delay:3}  {name:24} {' '.join(f'{v:.3f}' for v in values)}  {seconds:6.1f} s", flush=True)
    return found


def print_tables(settings, found, spectra):
    """Median accuracy and how many seeds solve the task, and some of the exponents before training."""
    print(f"\nmedian accuracy, and seeds of {settings.num_seeds} above {SOLVED}; chance is 0.5")
    print(f"  {'delay':24}" + "".join(f"{delay:>14}" for delay in settings.delays))
    for name, rows in found.items():
        values = [row["accuracy"] for row in rows.values()]
        cells = [f"{np.median(v):.3f} ({sum(a > SOLVED for a in v)})" for v in values]
        print(f"  {name:24}" + "".join(f"{cell:>14}" for cell in cells))
    places = [1, settings.hidden_size // 4, settings.hidden_size // 2, settings.floss_num, settings.hidden_size]
    print("\nexponents where training starts, in nats a step")
    print(f"  {'the largest but':24}" + "".join(f"{place - 1:>10}" for place in places))
    for name, values in spectra.items():
        print(f"  {name:24}" + "".join(f"{values[place - 1]:>10.3f}" for place in places))


def draw(settings, found, spectra, path):
    """Accuracy against the delay, all seeds and their median, beside the exponents of where training starts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(3, 2), layout="constrained")
    for place, (name, rows) in enumerate(found.items()):
        colour, marker, dashes = STYLES[name]
        shift = (place - (len(found) - 1) / 2) * 0.6
        for delay, row in rows.items():
            seeds = row["accuracy"]
            left.plot([int(delay) + shift] * len(seeds), seeds, marker, color=colour, ms=5, alpha=0.6, mew=0)
        medians = [np.median(row["accuracy"]) for row in rows.values()]
        left.plot(np.array(settings.delays) + shift, medians, dashes, color=colour, lw=2, marker=marker, label=name)
    left.axhline(0.5, color="0.5", lw=1, ls=":")
    left.annotate(
        "chance",
        (1, 0.5),
        xycoords=("axes fraction", "data"),
        xytext=(-4, -11),
        ha="right",
        color="0.4",
        textcoords="offset points",
    )
    left.set(xlabel="delay d (steps)", ylabel="accuracy on new sequences", ylim=(0.45, 1.02), xticks=settings.delays)
    left.set_title(f"Delayed XOR: {settings.num_seeds} seeds, lines through their medians", fontsize=11)
    for name, values in spectra.items():
        colour, _, dashes = STYLES[name]
        right.plot(np.arange(1, len(values) + 1), values, dashes, color=colour, lw=2)
    right.axhline(0, color="0.5", lw=1, ls=":")
    right.axvline(settings.floss_num, color="0.5", lw=1, ls=":")
    right.text(settings.floss_num - 1, -1.95, f"{settings.floss_num} flossed", ha="right", color="0.4")
    right.set(xlabel="exponent, the largest first", ylabel="Lyapunov exponent (nats a step)", ylim=(-2, 0.15))
    right.set_title("Where training starts", fontsize=11)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(found), frameon=False)
    figure.savefig(path, dpi=150)


def main():
    """Floss, tune, train, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, in a minute")
    parser.add_argument("--save", action="store_true", help=f"keep the figures in {RESULTS.name}, and a picture")
    options = parser.parse_args()
    settings = QUICK if options.quick else Settings()
    begin = time.perf_counter()
    keys, tuning_keys = jnp.split(
        jax.random.split(jax.random.key(0), settings.num_seeds + settings.num_tuning_seeds), [settings.num_seeds]
    )
    tuning = {}
    if len(settings.rates) > 1:
        tuning = tune(settings, contenders_of(settings, tuning_keys)[0], tuning_keys)
    contenders, flossing_seconds = contenders_of(settings, keys)
    spectra = {
        name: np.asarray(spectrum(params, keys)).round(4).tolist()
        for name, (params, _) in contenders.items()
        if name != DURING  # that starts where the one flossed before does
    }
    rates = best_rates(settings, contenders, tuning)
    found = compete(settings, contenders, keys, rates)
    print_tables(settings, found, spectra)
    seconds = {"all": round(time.perf_counter() - begin), "flossing one start": round(flossing_seconds, 1)}
    print(f"\nlearning rates {rates}; {seconds['all']} s, of which flossing one start {flossing_seconds:.1f} s")
    if options.save:
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        machine |= {"jax": jax.__version__, "jaxlib": jax.lib.__version__, "dtype": "float32"}
        tables = {"settings": dataclasses.asdict(settings), "tuning": tuning, "rates": rates, "spectra": spectra}
        tables = {"machine": machine} | tables | {"contenders": found, "seconds": seconds}
        RESULTS.write_text(json.dumps(tables, indent=1) + "\n")
        draw(settings, found, spectra, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    main()
