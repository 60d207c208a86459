"""The page of `rnn-jax anatomy`."""

from typing import Any

import numpy as np
from matplotlib import colormaps

from ..._reporting.html_page import Section, html_page, png, subplots
from ..plots import above_zero, mark_dead, say_if_empty, with_zeros
from .examine import Findings
from .verdict import verdict

SATURATED = "Where the activation lets no gradient through"
WITHOUT = "Eigenvalues of a step without activation"


def page(found: Findings) -> str:
    """The page as text."""
    sections = [
        profile(found),
        lag_map(found),
        products(found),
        lyapunov(found),
        eigenvalues(found),
        saturation(found),
        contributions(found),
    ]
    steps, streams = found.subject.batch.inputs.shape[:2]
    lead = (
        f"{found.subject.name}; {streams} sequences of {steps} steps. A gain is a factor of W_hh; "
        f"it is {found.detailed:g} unless stated otherwise."
    )
    return html_page("Anatomy of a gradient", lead, verdict(found), sections)


def profile(found: Findings) -> Section:
    """`‖δ_t‖` of the last loss against time, for each gain."""
    num_layers, time = found.profiles[0].shape
    figure, panels = subplots(1, num_layers, figsize=(9, 4), sharey=True, squeeze=False)
    colors = colormaps["viridis"](np.linspace(0, 0.9, len(found.gains)))
    t, profiles = np.arange(1, time + 1), np.stack(found.profiles)
    profiles = np.where(np.isfinite(profiles), profiles, np.nan)
    shown = above_zero(profiles)
    for layer, axes in enumerate(panels[0]):
        for gain, norms, color in zip(found.gains, shown[:, layer], colors, strict=True):
            axes.semilogy(t, norms, color=color, label=f"{gain:g}")
        for norms, is_zero, color in zip(shown[:, layer], profiles[:, layer] == 0, colors, strict=True):
            axes.plot(t[is_zero], norms[is_zero], color=color, marker="v", linestyle="none")
        axes.set(xlabel="step t", title=f"layer {layer + 1}")
        axes.grid(alpha=0.25)
        say_if_empty(axes, profiles[:, layer])
    panels[0, 0].set_ylabel(with_zeros("‖δ$_t$‖", profiles))
    panels[0, -1].legend(title="gain", fontsize="small")
    rows = [
        (f"{gain:g}", layer + 1, norms[layer][0], norms[layer][-1], _slope(norms[layer]))
        for gain, norms in zip(found.gains, found.profiles, strict=True)
        for layer in range(num_layers)
    ]
    return Section(
        "What one loss sends back",
        png(figure),
        "The norm of δ_t = ∂L_T/∂h_t for the loss of the last step only, all sequences together. Read from right to "
        "left: a straight line that falls is a gradient that vanishes exponentially; one that rises explodes. A "
        "triangle is a norm of exactly zero, which this axis cannot show; missing points are not finite.",
        ("gain", "layer", "‖δ_1‖", "‖δ_T‖", "factor per step back"),
        rows,
    )


def _slope(norms: np.ndarray) -> float:
    """The factor per step back, from a straight line through the logs."""
    seen = norms > 0
    if seen.sum() < 2:
        return float("nan")
    t = np.arange(len(norms))[seen]
    return float(np.exp(-np.polyfit(t, np.log(norms[seen]), 1)[0]))


def _logs(norms: np.ndarray) -> np.ndarray:
    """Logarithms to the base of ten; minus infinity for zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: np.ndarray = np.log10(norms)
    return logs


def lag_map(found: Findings) -> Section:
    """`‖∂L_i/∂h_{i-lag}‖` of every loss and lag."""
    grid = np.sqrt(sum(np.square(g.astype(np.float64)) for g in found.whole.lag_norms))
    grid = np.sqrt(np.mean(np.square(grid.reshape(*grid.shape[:2], -1)), 2))
    there = np.arange(len(grid))[:, None] <= np.arange(grid.shape[1]) + 1  # no state is before h_0
    logs = _logs(np.where(there, grid, np.nan))
    figure, axes = subplots(figsize=(9, 4))
    place: dict[str, Any] = {
        "origin": "lower",
        "aspect": "auto",
        "extent": (0.5, grid.shape[1] + 0.5, -0.5, len(grid) - 0.5),
    }
    axes.imshow(np.where(there & (grid == 0), 0.8, np.nan), cmap="gray", vmin=0, vmax=1, **place)
    if np.isfinite(logs).any():
        image = axes.imshow(np.where(np.isfinite(logs), logs, np.nan), **place)
        figure.colorbar(image, label="log$_{10}$ ‖∂L$_i$/∂h$_{i-lag}$‖")
    say_if_empty(axes, logs[there], "zero")
    axes.set(xlabel="loss of step i", ylabel="lag")
    shown = sorted({0, 1, 2, 5, 10, 20, 50, 100, len(grid) - 1} & set(range(len(grid))))
    means = [np.mean(grid[lag, max(lag - 1, 0) :]) for lag in shown]
    return Section(
        "Which loss reaches which state",
        png(figure),
        "A column is the loss of one step, a row is a number of steps before it. Bright: its gradient is large there. "
        "Colour that fades upwards evenly is a gradient that vanishes; bright columns are losses that reach far. The "
        "upper left corner is empty, because there are no earlier steps. Grey is exactly zero.",
        ("lag", "mean norm"),
        list(zip(shown, means, strict=True)),
    )


def products(found: Findings) -> Section:
    """Singular values of products of Jacobians, against the number of factors."""
    figure, panels = subplots(1, len(found.singular_values), figsize=(9, 4), sharey=True, squeeze=False)
    rows = []
    for layer, (logs, axes) in enumerate(zip(found.singular_values, panels[0], strict=True)):
        shown = sorted({round(q * (logs.shape[1] - 1)) for q in (0, 0.05, 0.1, 0.25, 0.5)})
        colors = colormaps["viridis"](np.linspace(0, 0.9, len(shown)))
        for i, color in zip(shown, colors, strict=True):
            values = np.where(np.isfinite(logs[:, i]), logs[:, i], np.nan) / np.log(10)
            axes.plot(found.product_lags, values, color=color, marker=".", label=f"{i + 1}.")
            mark_dead(axes, found.product_lags, logs[:, i], color)
        say_if_empty(axes, logs)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set(xlabel="factors", title=f"layer {layer + 1}")
        axes.grid(alpha=0.25)
        half = logs.shape[1] // 2
        rows += [
            (layer + 1, lag, row[0], row[half], row[-1]) for lag, row in zip(found.product_lags, logs, strict=True)
        ]
    panels[0, 0].set_ylabel("log$_{10}$ of the singular value")
    panels[0, -1].legend(fontsize="small")
    return Section(
        "How far Jacobians stretch",
        png(figure),
        "Singular values of J_T J_{T-1} ⋯, the Jacobians of one layer along the first sequence, the largest first: how "
        "much a gradient can grow (above 0) or shrink (below 0) over a number of steps, in the best direction and in "
        "others, down to the middle one. They separate because each direction has its own rate. A triangle at the "
        "bottom is minus infinity: no direction is left.",
        ("layer", "factors", "ln of the largest", "ln of the middle", "ln of the smallest"),
        rows,
    )


def lyapunov(found: Findings) -> Section:
    """The leading exponents of each gain."""
    figure, axes = subplots(figsize=(9, 4))
    colors = colormaps["viridis"](np.linspace(0, 0.9, len(found.gains)))
    for gain, spectrum, color in zip(found.gains, found.spectra, colors, strict=True):
        index = np.arange(1, len(spectrum.exponents) + 1)
        bars = 2 * np.where(np.isfinite(spectrum.errors), spectrum.errors, 0)
        shown = np.where(np.isfinite(spectrum.exponents), spectrum.exponents, np.nan)
        axes.errorbar(index, shown, bars, color=color, marker=".", label=f"{gain:g}")
        mark_dead(axes, index, spectrum.exponents, color)
    say_if_empty(axes, np.stack([spectrum.exponents for spectrum in found.spectra]))
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(xlabel="i", ylabel="λ$_i$, nats per step")
    axes.grid(alpha=0.25)
    axes.legend(title="gain", fontsize="small")
    rows = [
        (f"{gain:g}", s.exponents[0], s.errors[0], s.exponents[-1], s.dimension)
        for gain, s in zip(found.gains, found.spectra, strict=True)
    ]
    return Section(
        "Lyapunov exponents",
        png(figure),
        f"The rates at which nearby states separate (above 0) or approach (below 0), over {found.num_counted:,} "
        "steps; bars are two standard errors. The gradient grows or vanishes at the rate of the first. All below 0: "
        "the state forgets where it started. Some above 0 while the states stay bounded: chaos, and the dimension says "
        "in how many directions. A triangle at the bottom is minus infinity: nothing passes in that direction, for "
        "units that are off, a singular W_hh or units so saturated that float32 cannot hold their slope. Missing "
        "values grew out of range.",
        ("gain", "λ_1", "error", f"λ_{len(found.spectra[0].exponents)}", "Kaplan-Yorke dimension"),
        rows,
    )


def eigenvalues(found: Findings) -> Section:
    """Eigenvalues of `W_hh` and the unit circle."""
    if not found.eigenvalues:
        return Section(
            WITHOUT,
            None,
            "A layer with gates has no such step, because its gates multiply what W_hh passes on: see the Lyapunov "
            "exponents.",
        )
    figure, panels = subplots(1, len(found.eigenvalues), figsize=(9, 4), squeeze=False)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    for layer, (values, axes) in enumerate(zip(found.eigenvalues, panels[0], strict=True)):
        axes.plot(circle.real, circle.imag, color="0.5", linewidth=0.8)
        axes.scatter(values.real, values.imag, s=9, color="tab:blue")
        axes.set(aspect="equal", xlabel="real", title=f"layer {layer + 1}")
        axes.grid(alpha=0.25)
    panels[0, 0].set_ylabel("imaginary")
    radii = [np.abs(values).max() for values in found.eigenvalues]
    outside = [int((np.abs(values) > 1).sum()) for values in found.eigenvalues]
    return Section(
        WITHOUT,
        png(figure),
        "The eigenvalues of (1 - α) I + α W_hh; without leak, of W_hh. Without activation, a gradient explodes along "
        "eigenvectors outside of the unit circle and vanishes along those inside. If the largest singular value of "
        "W_hh is below 1, nothing can explode. With tanh, φ' matters too.",
        ("layer", "spectral radius", "outside", "largest singular value"),
        [(i + 1, *row) for i, row in enumerate(zip(radii, outside, found.w_hh_norms, strict=True))],
    )


def saturation(found: Findings) -> Section:
    """The slope of each gate, unit and step; of a vanilla layer `φ'`."""
    layers = found.whole.layers
    names = found.subject.params.cells[0].gate_names if layers[0].gates else ()
    if not names:
        return Section(SATURATED, None, "The slopes of these cells are not known, so their saturation cannot be shown.")
    gated = len(names) > 1
    size = (9, 1 + 2 * len(names)) if gated else (9, 4)
    figure, panels = subplots(len(names), len(layers), figsize=size, squeeze=False)
    rows = []
    for i, layer in enumerate(layers):
        for name, axes in zip(names, panels[:, i], strict=True):
            d_phi = np.asarray(layer.gates[name].slope, np.float64)
            order = np.argsort(np.nanmean(d_phi, 0))
            extent = (0.5, len(d_phi) + 0.5, 0.5, d_phi.shape[1] + 0.5)
            image = axes.imshow(
                d_phi[:, order].T, origin="lower", aspect="auto", extent=extent, vmin=0, vmax=1, cmap="magma"
            )
            axes.set(title=f"layer {i + 1}, gate {name}" if gated else f"layer {i + 1}")
            means = np.nanmean(d_phi), 100 * np.nanmean(layer.gates[name].saturated)
            rows.append((i + 1, name, *means) if gated else (i + 1, *means))
        axes.set(xlabel="step t")
    panels[0, 0].set_ylabel("unit" if gated else "unit, the most saturated first")
    figure.colorbar(image, ax=panels, label="slope" if gated else "φ'(a$_t$), mean over the sequences")
    if not gated:
        return Section(
            SATURATED,
            png(figure),
            "Dark units are saturated: φ' is near 0, and a gradient that goes back through them is lost, whatever W_hh "
            "is.",
            ("layer", "mean of φ'", "% below 0.1"),
            rows,
        )
    return Section(
        "Where the gates let no gradient through",
        png(figure),
        "The slope of each gate, 4 σ (1 - σ) or 1 - tanh², the mean over the sequences; the most saturated unit first. "
        "Dark units are saturated: a gate that is open or closed, to which no gradient comes. A gradient that goes "
        "past the gate does not mind: an open forget gate f of an LSTM, or update gate k of a GRU, passes it on whole.",
        ("layer", "gate", "mean slope", "% below 0.1"),
        rows,
    )


def contributions(found: Findings) -> Section:
    """What each step adds to the gradient of `W_hh`."""
    layers = found.whole.layers
    figure, (above, below) = subplots(2, 1, figsize=(9, 5), sharex=True)
    rows = []
    for i, layer in enumerate(layers):
        norms, cosines = (np.asarray(x.w_hh, np.float64) for x in (layer.part_norms, layer.part_cosines))
        t = np.arange(1, len(norms) + 1)
        seen = np.where(norms > 0, 1, np.nan)  # at t = 1 h_0 is zero, and adds nothing
        above.plot(t, seen * norms, color=f"C{i}", marker=".", label=f"layer {i + 1}")
        mark_dead(above, t, _logs(norms), f"C{i}")
        below.plot(t, seen * cosines, color=f"C{i}", marker=".")
        whole = np.sum(norms * cosines)
        rows.append((i + 1, whole, np.sum(norms), np.mean(cosines), int(t[np.argmax(norms)]) if len(t) else 0))
    say_if_empty(above, np.stack([_logs(np.asarray(layer.part_norms.w_hh, np.float64)) for layer in layers]), "zero")
    above.set(yscale="log", ylabel="‖h$_{t-1}^T$ d_a$_t$‖")
    above.legend(fontsize="small")
    below.set(xlabel="step t", ylabel="cosine with the whole", ylim=(-1.05, 1.05))
    below.axhline(0, color="0.5", linewidth=0.8)
    for axes in (above, below):
        axes.grid(alpha=0.25)
    return Section(
        "What each step adds to the gradient of W_hh",
        png(figure),
        "The size of each step's part, and whether it points along the gradient (1), across it (0) or against it (-1). "
        "Norm times cosine adds up to the norm of the gradient: a few large steps that agree, or many that cancel. A "
        "triangle at the bottom is a step that adds nothing, like the first one if h_0 is zero.",
        ("layer", "‖d_W_hh‖", "sum of the norms", "mean cosine", "largest at t"),
        rows,
    )
