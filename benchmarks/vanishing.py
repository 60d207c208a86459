"""The figures of docs/vanishing.md: why gradients vanish and explode, measured, one picture to a question.

    python benchmarks/vanishing.py            # prints the figures
    python benchmarks/vanishing.py --save     # and keeps pictures in docs/, numbers in results/vanishing.json

Nothing is timed; in float64, and the same on every run, to rounding.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import rnn_jax
from rnn_jax._reporting.machine import machine_record
from rnn_jax.initializers import normal, orthogonal

jax.config.update("jax_enable_x64", True)
plt.switch_backend("Agg")  # no windows
HERE = Path(__file__).parent
DOCS, RESULTS = HERE.parent / "docs", HERE / "results" / "vanishing.json"
HID, IN, OUT, NUM = 64, 8, 8, 16
NETWORKS, SMALL = 300, 16  # for the spread over networks


def network(recurrent_init, activation="tanh"):
    """One layer, always with the same `W_xh` and readout."""
    sizes = {"input_size": IN, "hidden_size": HID, "output_size": OUT}
    return rnn_jax.init_params(jax.random.key(0), activation=activation, recurrent_init=recurrent_init, **sizes)


def data(time):
    """Normal inputs, and a random class at the last step."""
    xkey, ykey = jax.random.split(jax.random.key(1))
    inputs = jax.random.normal(xkey, (time, NUM, IN))
    return rnn_jax.Batch(inputs, jax.random.randint(ykey, (1, NUM), 0, OUT))


def look(params, batch):
    """The gradient, the anatomy of the one layer, and `‖δ_t‖` of all sequences together, t = 1..T."""
    found = jax.jit(rnn_jax.analysis.anatomy)(params, batch, rnn_jax.zero_state(params, NUM))
    (layer,) = found.layers
    return found.gradients.params, layer, np.linalg.norm(layer.d_h_norms, axis=1)


def rate(norms):
    """The factor a step back of a line through the logs."""
    return float(np.exp(-np.polyfit(np.arange(len(norms)), np.log(norms), 1)[0]))


def picture(xlabel, ylabel, height=3.2):
    """A figure with one pair of axes."""
    figure, axes = plt.subplots(figsize=(7, height), layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def depth():
    """1. Unrolled, a network of T layers: the gradient with respect to each copy of `W_hh`, and their sum."""
    time = 30
    params, batch = network(orthogonal(0.9)), data(time)
    cell, h_0 = params.cells[0], rnn_jax.zero_state(params, NUM)

    def loss_of_copies(copies):
        """A feed-forward network of T layers, each with a matrix of its own."""
        h = h_0[0]
        for x_t, copy in zip(batch.inputs, copies, strict=True):
            h = jnp.tanh(x_t @ cell.w_xh + h @ copy + cell.b_h)
        return jnp.mean(rnn_jax.cross_entropy(rnn_jax.readout(params.readout, h), batch.targets[0])[0])

    def largest(difference):
        return float(np.abs(difference).max() / np.abs(whole).max())

    of_copies = jax.jit(jax.grad(loss_of_copies))(jnp.stack([cell.w_hh] * time))
    parts = jax.jit(rnn_jax.analysis.step_gradients)(params, batch, h_0)[1].cells[0].w_hh
    whole = look(params, batch)[0].cells[0].w_hh
    of_steps, norms = (np.linalg.norm(d, axis=(1, 2))[1:] for d in (parts, of_copies))  # h_0 is zero: no part at 1
    figure, axes = picture("step t, or layer t", "norm of the gradient of its W$_{hh}$", height=3)
    t = np.arange(2, time + 1)
    axes.semilogy(t, of_steps, "o", markersize=9, markerfacecolor="none", label="step of the recurrent network")
    axes.semilogy(t, norms, "x", label="layer of the deep network")
    axes.legend()
    return figure, {
        "largest difference of a copy's gradient from the step's part": largest(of_copies - parts),
        "largest difference of the sum of copies from d_W_hh": largest(of_copies.sum(0) - whole),
        "first copy over last copy, norms": float(norms[0] / norms[-1]),
    }


def tied():
    """2. The same matrix at every step, beside another one at every layer: the spread over networks grows with T."""
    depths, rng, facts = np.arange(1, 61), np.random.default_rng(0), {}
    delta = rng.standard_normal((NETWORKS, SMALL))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, color in (("recurrent", "tab:red"), ("feed-forward", "tab:blue")):
        d_h, found = delta, []
        w = rng.standard_normal((NETWORKS, SMALL, SMALL)) / SMALL**0.5
        for _ in depths:
            d_h = np.einsum("nj,nij->ni", d_h, w)  # no activation: the product alone
            found.append(np.log10(np.linalg.norm(d_h, axis=1) / np.linalg.norm(delta, axis=1)))
            if name == "feed-forward":
                w = rng.standard_normal((NETWORKS, SMALL, SMALL)) / SMALL**0.5
        logs = np.array(found)
        low, middle, high = np.percentile(logs, [5, 50, 95], axis=1)
        left.fill_between(depths, low, high, color=color, alpha=0.2, linewidth=0)
        left.plot(depths, middle, color=color, label=name)
        spread = logs.std(1)
        right.loglog(depths, spread, color=color, label=name)
        facts[name] = {
            "log10 of the norm at 60, median": float(middle[-1]),
            "5 % and 95 %": [float(low[-1]), float(high[-1])],
            "standard deviation at 60": float(spread[-1]),
            "spread grows as depth to the power": float(np.polyfit(np.log(depths[9:]), np.log(spread[9:]), 1)[0]),
            "share below 1e-3 at 60": float(np.mean(logs[-1] < -3)),
            "share above 1e3 at 60": float(np.mean(logs[-1] > 3)),
        }
    left.set(xlabel="steps, or layers, back", ylabel="log$_{10}$ ‖δ‖, 5 to 95 %")
    right.set(xlabel="steps, or layers, back", ylabel="standard deviation over networks")
    right.legend()
    return figure, facts


def activations():
    """3. tanh, relu and identity at the same gain."""
    facts = {}
    figure, axes = picture("step t", "‖δ$_t$‖ of the loss at T = 60")
    for name, color in (("identity", "tab:blue"), ("tanh", "tab:red"), ("relu", "tab:green")):
        _, layer, norms = look(network(orthogonal(1.0), name), data(60))
        axes.semilogy(np.arange(1, 61), norms, color=color, label=name)
        facts[name] = {"factor a step back": rate(norms), "mean of φ'": float(jnp.mean(layer.d_phi))}
    axes.legend()
    return figure, facts


def lengths():
    """4. What the first step gets of the loss at the last, against the length."""
    times, gains, facts = [2, 5, 10, 20, 50, 100, 200, 400], (0.5, 0.9, 1.0, 1.1, 1.5), {}
    figure, axes = picture("length T", "‖δ$_1$‖ / ‖δ$_T$‖")
    for gain, color in zip(gains, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(gains))), strict=True):
        shares = {}
        for name in ("identity", "tanh"):
            profiles = [look(network(orthogonal(gain), name), data(time))[2] for time in times]
            shares[name] = [float(norms[0] / norms[-1]) for norms in profiles]
        axes.loglog(times, shares["identity"], marker="o", color=color, label=f"{gain:g}, identity")
        axes.loglog(times, shares["tanh"], marker=".", linestyle="--", color=color)
        facts[f"gain {gain:g}"] = {"T": times, **shares}
    axes.axhspan(1e-300, float(jnp.finfo(jnp.float32).tiny), color="0.85")
    axes.set(ylim=(1e-60, 1e60))
    axes.legend(fontsize="small", title="gain (tanh: dashed)", ncols=2)
    return figure, facts


def clipping():
    """5. What clipping leaves of an exploding and of a vanishing gradient."""
    time, facts = 40, {}
    figure, axes = picture("step t", "norm of its part of d_W$_{hh}$")
    for gain, color in ((1.3, "tab:red"), (0.7, "tab:blue")):
        d_params, layer, _ = look(network(orthogonal(gain), "identity"), data(time))
        largest = max(float(jnp.abs(d).max()) for d in jax.tree.leaves(d_params))
        clips = (rnn_jax.clip_gradients(max_norm=1.0), rnn_jax.clip_gradients(max_value=0.1 * largest))
        by_norm, by_value = (clip.update(d_params, clip.init(d_params))[0] for clip in clips)
        norm, after = float(optax.tree.norm(d_params)), float(optax.tree.norm(by_norm))
        cosine = optax.tree.vdot(by_value, d_params) / (optax.tree.norm(by_value) * norm)
        t, parts = np.arange(2, time + 1), np.asarray(layer.part_norms.w_hh)[1:]  # h_0 is zero: no part at 1
        axes.semilogy(t, parts, color=color, label=f"gain {gain:g}")
        axes.semilogy(t, parts * (after / norm), color=color, linestyle="--", label="clipped to norm 1")
        facts[f"gain {gain:g}"] = {
            "norm before": norm,
            "norm after": after,
            "largest step's part over smallest's, before and after": float(parts.max() / parts.min()),
            "cosine with the gradient, each entry clipped to a tenth of the largest": float(cosine),
        }
    axes.legend(fontsize="small")
    return figure, facts


def without_phi():
    """6. `‖δ_t‖` beside the same without φ': only multiplied by `W_hh`."""
    time, facts = 40, {}
    figure, axes = picture("step t", "norm")
    for gain, color in ((1.1, "tab:blue"), (1.5, "tab:red")):
        params = network(normal(gain / HID**0.5))
        _, layer, norms = look(params, data(time))
        d_h, wrong = np.asarray(layer.d_hs[-1]), []
        for _ in range(time):
            wrong.insert(0, np.linalg.norm(d_h))
            d_h = d_h @ np.asarray(params.cells[0].w_hh).T
        t = np.arange(1, time + 1)
        axes.semilogy(t, norms, color=color, label=f"‖δ$_t$‖, gain {gain:g}")
        axes.semilogy(t, wrong, color=color, linestyle="--", label="W$_{hh}^T$ δ alone, no φ'")
        facts[f"gain {gain:g}"] = {
            "factor a step back": rate(norms),
            "without φ'": rate(np.array(wrong)),
            "too large at t = 1 by": float(wrong[0] / norms[0]),
            "mean of φ'": float(jnp.mean(layer.d_phi)),
        }
    axes.legend(fontsize="small", ncols=2)
    return figure, facts


FIGURES = (depth, tied, activations, lengths, clipping, without_phi)


def main():
    """Make all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep pictures in docs/ and numbers in {RESULTS.name}")
    save = parser.parse_args().save
    results = {}
    for make in FIGURES:
        name = make.__name__.replace("_", "-")
        figure, results[name] = make()
        for axes in figure.axes:
            axes.grid(alpha=0.25)
        print(f"{name}: {json.dumps(results[name], indent=1)}")
        if save:
            figure.savefig(DOCS / f"vanishing-{name}.png", dpi=100)
        plt.close(figure)
    if save:
        RESULTS.write_text(json.dumps({"machine": machine_record(), "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
