"""The experiments by name. This module does not import jax, so that the list appears at once."""

CATALOGUE = {  # name: module, what it asks
    "notebooks": ("notebooks", "The exercises of the teaching notebooks, done right"),
    "by-hand-vs-autodiff": ("by_hand_vs_autodiff", "The same training with both gradients: losses, time, memory"),
    "truncation": ("truncation", "What truncating the gradient costs, on short and on long dependencies"),
    "clipping": ("clipping", "How clipping prevents divergence when gradients explode, at growing learning rates"),
    "long-memory": ("long_memory", "Adding and copying at lengths of 10 to 750, from five starts"),
    "temporal-order": (
        "temporal_order",
        "Clipping and the vanishing-gradient regulariser, as in Pascanu et al. (2013)",
    ),
    "flossing": (
        "flossing",
        "Delayed XOR at delays of 10 to 50, with the Lyapunov exponents brought to zero and without",
    ),
    "cells": ("cells", "Tanh units, GRU and LSTM at equal numbers of parameters, and at equal times, on four tasks"),
    "digits": ("digits", "Handwritten digits, one pixel or one row per step, compared with scikit-learn"),
    "forecast": ("forecast", "Sunspots months to years ahead, compared with persistence and an autoregression"),
    "text": ("text", "Bits per character, compared with n-gram models"),
}
