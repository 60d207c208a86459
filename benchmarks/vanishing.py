"""The figures of docs/vanishing.md: why gradients vanish and explode, measured, one picture to a question.

    python benchmarks/vanishing.py            # prints the figures
    python benchmarks/vanishing.py --save     # and keeps pictures in docs/, numbers in results/vanishing.json

Nothing is timed; in float64, and the same on every run.
"""

import argparse
import json
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp  # noqa: E402
import matplotlib  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

import rnn_jax  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
DOCS, RESULTS = HERE.parent / "docs", HERE / "results" / "vanishing.json"
HID, IN, OUT, NUM = 64, 8, 8, 16
GAINS = (0.5, 0.9, 1.0, 1.1, 1.5)
NETWORKS, SMALL = 300, 16  # for the spread over networks


def network(gain, *, activation="tanh", init="orthogonal", hid=HID, seed=0):
    """A network whose `W_hh` is `gain` times an orthogonal matrix, or one of normal entries with spectral radius 1."""
    recurrent = (
        rnn_jax.initializers.orthogonal(gain) if init == "orthogonal" else rnn_jax.initializers.normal(gain / hid**0.5)
    )
    sizes = {"input_size": IN, "hidden_size": hid, "output_size": OUT}
    return rnn_jax.init_params(jax.random.key(seed), activation=activation, recurrent_init=recurrent, **sizes)


def data(time, *, last=1, size=1.0, seed=1):
    """Normal inputs of a size, random classes at the last steps."""
    xkey, ykey = jax.random.split(jax.random.key(seed))
    inputs = size * jax.random.normal(xkey, (time, NUM, IN))
    return rnn_jax.Batch(inputs, jax.random.randint(ykey, (last, NUM), 0, OUT))


def look(params, batch):
    """The anatomy of the gradient, without lags."""
    return jax.jit(rnn_jax.analysis.anatomy)(params, batch, rnn_jax.zero_state(params, NUM))


def profile(params, batch):
    """`‖δ_t‖` of all sequences together, t = 1..T."""
    return np.linalg.norm(look(params, batch).layers[0].d_h_norms, axis=1)


def rate(norms):
    """The factor a step back of a line through the logs."""
    t = np.arange(len(norms))
    return float(np.exp(-np.polyfit(t, np.log(norms), 1)[0]))


def depth():
    """1. Unrolled, a network of T layers: the gradient with respect to each copy of `W_hh`, and their sum."""
    time = 30
    params, batch = network(0.9), data(time)
    cell, (h_0,) = params.cells[0], rnn_jax.zero_state(params, NUM)

    def loss_of_copies(copies):
        """A feed-forward network of T layers, each with a matrix of its own."""
        h = h_0
        for t in range(time):
            h = jnp.tanh(batch.inputs[t] @ cell.w_xh + h @ copies[t] + cell.b_h)
        ys = rnn_jax.readout(params.readout, h)
        return jnp.mean(rnn_jax.cross_entropy(ys, batch.targets[0])[0])

    of_copies = jax.jit(jax.grad(loss_of_copies))(jnp.stack([cell.w_hh] * time))
    _, parts = jax.jit(rnn_jax.analysis.step_gradients)(params, batch, (h_0,))
    _, gradients = jax.jit(rnn_jax.make_grad_fn("blocked", loss="cross_entropy"))(params, batch, (h_0,))
    whole = gradients.params.cells[0].w_hh
    norms = np.linalg.norm(of_copies, axis=(1, 2))
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    t, of_steps = np.arange(2, time + 1), np.linalg.norm(parts.cells[0].w_hh, axis=(1, 2))  # h_0 is zero: no part at 1
    axes.semilogy(t, of_steps[1:], "o", markersize=9, markerfacecolor="none", label="step of the recurrent network")
    axes.semilogy(t, norms[1:], "x", label="layer of the deep network")
    axes.set(xlabel="step t, or layer t", ylabel="norm of the gradient of its W$_{hh}$")
    axes.legend()
    scale = np.abs(whole).max()
    return figure, {
        "largest difference of a copy's gradient from the step's part": _ratio(of_copies - parts.cells[0].w_hh, scale),
        "largest difference of the sum of copies from d_W_hh": _ratio(of_copies.sum(0) - whole, scale),
        "first copy over last copy, norms": float(norms[1] / norms[-1]),
    }


def _ratio(difference, scale):
    return float(np.abs(difference).max() / scale)


def tied():
    """2. The same matrix at every step, beside another one at every layer: the spread over networks grows with T."""
    depths = np.arange(1, 61)
    rng = np.random.default_rng(0)
    delta = rng.standard_normal((NETWORKS, SMALL))
    logs = {}
    for name in ("recurrent", "feed-forward"):
        d_h, found = delta.copy(), []
        w = rng.standard_normal((NETWORKS, SMALL, SMALL)) / SMALL**0.5
        for _ in depths:
            d_h = np.einsum("nj,nij->ni", d_h, w)  # no activation: the product alone
            found.append(np.log10(np.linalg.norm(d_h, axis=1) / np.linalg.norm(delta, axis=1)))
            if name == "feed-forward":
                w = rng.standard_normal((NETWORKS, SMALL, SMALL)) / SMALL**0.5
        logs[name] = np.array(found)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    facts = {}
    for name, color in (("recurrent", "tab:red"), ("feed-forward", "tab:blue")):
        low, middle, high = np.percentile(logs[name], [5, 50, 95], axis=1)
        left.fill_between(depths, low, high, color=color, alpha=0.2, linewidth=0)
        left.plot(depths, middle, color=color, label=name)
        spread = logs[name].std(1)
        right.loglog(depths, spread, color=color, label=name)
        slope = np.polyfit(np.log(depths[9:]), np.log(spread[9:]), 1)[0]
        facts[name] = {
            "log10 of the norm at 60, median": float(middle[-1]),
            "5 % and 95 %": [float(low[-1]), float(high[-1])],
            "standard deviation at 60": float(spread[-1]),
            "spread grows as depth to the power": float(slope),
            "share below 1e-3 at 60": float(np.mean(logs[name][-1] < -3)),
            "share above 1e3 at 60": float(np.mean(logs[name][-1] > 3)),
        }
    left.set(xlabel="steps, or layers, back", ylabel="log$_{10}$ ‖δ‖, 5 to 95 %")
    right.set(xlabel="steps, or layers, back", ylabel="standard deviation over networks")
    right.legend()
    return figure, facts


def activations():
    """3. tanh, relu and identity at the same gain."""
    time, facts = 60, {}
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for name, color in (("identity", "tab:blue"), ("tanh", "tab:red"), ("relu", "tab:green")):
        found = look(network(1.0, activation=name), data(time))
        norms = np.linalg.norm(found.layers[0].d_h_norms, axis=1)
        axes.semilogy(np.arange(1, time + 1), norms, color=color, label=name)
        facts[name] = {"factor a step back": rate(norms), "mean of φ'": float(jnp.mean(found.layers[0].d_phi))}
    axes.set(xlabel="step t", ylabel="‖δ$_t$‖ of the loss at T = 60")
    axes.legend()
    return figure, facts


def lengths():
    """4. What the first step gets of the loss at the last, against the length."""
    times = [2, 5, 10, 20, 50, 100, 200, 400]
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    facts = {}
    for gain, color in zip(GAINS, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(GAINS))), strict=True):
        shares = []
        for time in times:
            norms = profile(network(gain, activation="identity"), data(time))
            shares.append(float(norms[0] / norms[-1]))
        axes.loglog(times, shares, marker="o", color=color, label=f"{gain:g}, identity")
        tanh = []
        for time in times:
            norms = profile(network(gain), data(time))
            tanh.append(float(norms[0] / norms[-1]))
        axes.loglog(times, tanh, marker=".", linestyle="--", color=color)
        facts[f"gain {gain:g}"] = {"T": times, "identity": shares, "tanh": tanh}
    axes.axhspan(1e-300, float(jnp.finfo(jnp.float32).tiny), color="0.85")
    axes.set(xlabel="length T", ylabel="‖δ$_1$‖ / ‖δ$_T$‖", ylim=(1e-60, 1e60))
    axes.legend(fontsize="small", title="gain (tanh: dashed)", ncols=2)
    return figure, facts


def clipping():
    """5. What clipping leaves of an exploding and of a vanishing gradient."""
    time = 40
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    facts = {}
    for gain, activation, color in ((1.3, "identity", "tab:red"), (0.7, "identity", "tab:blue")):
        params, batch = network(gain, activation=activation), data(time, last=1)
        found = look(params, batch)
        d_params, parts = found.gradients.params, np.asarray(found.layers[0].part_norms.w_hh)
        norm = float(optax.tree.norm(d_params))
        ratio = min(1.0, 1.0 / norm)
        largest = max(float(jnp.abs(d).max()) for d in jax.tree.leaves(d_params))
        clip = rnn_jax.clip_gradients(max_value=0.1 * largest)
        by_value, _ = clip.update(d_params, clip.init(d_params))
        cosine = optax.tree.vdot(by_value, d_params) / (optax.tree.norm(by_value) * norm)
        t = np.arange(2, time + 1)  # h_0 is zero: no part at 1
        axes.semilogy(t, parts[1:], color=color, label=f"gain {gain:g}")
        axes.semilogy(t, ratio * parts[1:], color=color, linestyle="--", label="clipped to norm 1")
        facts[f"gain {gain:g}"] = {
            "norm before": norm,
            "norm after": norm * ratio,
            "largest step's part over smallest's, before and after": float(parts[1:].max() / parts[1:].min()),
            "cosine with the gradient, each entry clipped to a tenth of the largest": float(cosine),
        }
    axes.set(xlabel="step t", ylabel="norm of its part of d_W$_{hh}$")
    axes.legend(fontsize="small")
    return figure, facts


def without_phi():
    """6. `‖δ_t‖` beside the same without φ': only multiplied by `W_hh`."""
    time, facts = 40, {}
    figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for gain, color in ((1.1, "tab:blue"), (1.5, "tab:red")):
        params, batch = network(gain, init="normal"), data(time)
        layer = look(params, batch).layers[0]
        norms = np.linalg.norm(layer.d_h_norms, axis=1)
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
    axes.set(xlabel="step t", ylabel="norm")
    axes.legend(fontsize="small", ncols=2)
    return figure, facts


FIGURES = {
    "depth": depth,
    "tied": tied,
    "activations": activations,
    "lengths": lengths,
    "clipping": clipping,
    "without-phi": without_phi,
}


def main():
    """Make all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help=f"keep pictures in docs/ and numbers in {RESULTS.name}")
    save = parser.parse_args().save
    results = {}
    for name, make in FIGURES.items():
        figure, results[name] = make()
        for axes in figure.axes:
            axes.grid(alpha=0.25)
        print(f"{name}: {json.dumps(results[name], indent=1)}")
        if save:
            figure.savefig(DOCS / f"vanishing-{name}.png", dpi=100)
        plt.close(figure)
    if save:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
