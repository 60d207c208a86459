"""The results of `rnn-jax anatomy`, in words."""

import numpy as np

from ...analysis import TruncationReport
from ..truncation import NOTHING, nothing_through_time
from .examine import Findings

ROUNDING = 1e-4  # nats per step, in float32: below it, a rate cannot be distinguished from zero


def verdict(found: Findings) -> list[str]:
    """The results in three lines."""
    spectrum = found.spectra[found.gains.index(found.detailed)]
    first, error = spectrum.exponents[0], spectrum.errors[0]
    decay, decay_error = (float(np.asarray(x, np.float64)) for x in (found.whole.decay, found.whole.decay_error))
    rate = f"{decay:.3g}" + (f" ± {decay_error:.1g}" if np.isfinite(decay_error) else "")
    fading = f"‖∂L_i/∂h_(i-lag)‖ changes by a factor of {rate} with each step back."
    return [
        fading if np.isfinite(decay) else "No decay of ‖∂L_i/∂h_(i-lag)‖ can be measured: too few lags, or not finite.",
        f"The largest Lyapunov exponent is {_exponent(first, error)}: {_predictable(first, error)}",
        truncated(found.truncation),
    ]


def truncated(report: TruncationReport) -> str:
    """What truncation was measured to lose, with the k1 and k2 it was measured at."""
    if nothing_through_time(report):
        return NOTHING
    if not np.isfinite([row.whole.error for row in report.rows]).all():
        return "What truncation loses cannot be measured: the gradient is zero or not finite."
    losses = ", ".join(f"{row.whole.error:.1%} with k1 = {row.k1}" for row in report.rows)
    return f"Truncated at k2 = {report.rows[0].k2} steps, the gradient of these sequences loses {losses} (measured)."


def _exponent(first: float, error: float) -> str:
    if np.isnan(first):
        return "not a number"
    return f"{first:.4f} ± {error:.1g} nats per step" if np.isfinite(first) else "minus infinity"


def _predictable(first: float, error: float) -> str:
    margin = max(2 * error, ROUNDING)
    if np.isnan(first):
        return "the states grow out of the range of their number type, and so do gradients."
    if first == -np.inf:
        return (
            "no gradient is left far back. In every direction, units pass nothing on, or less than the number type "
            "can hold."
        )
    if first < -margin:
        return (
            f"nearby states approach each other, and a gradient vanishes: about 1 % of it is left "
            f"{np.log(100) / -first:.2g} steps back."
        )
    if first > margin:
        return (
            f"nearby states separate by a factor of e every {1 / first:.2g} steps, and gradients grow as fast on the "
            "way back."
        )
    return "it cannot be distinguished from zero: gradients neither grow nor vanish."
