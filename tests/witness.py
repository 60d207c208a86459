"""Central differences of the loss that NumPy loops compute, over every entry, and helpers for NumPy loops."""

import jax
import numpy as np

from rnn_jax import Gradients
from rnn_jax.verify import _numpy_witnesses as loops


def one_hot(index, size):
    vector = np.zeros(size)
    vector[index] = 1.0
    return vector


def softmax(y):
    e = np.exp(y - y.max())
    return e / e.sum()


def as_numpy(problem):
    """Per layer `(w_xh, w_hh, b_h)` and then `(w_hy, b_y)`; the batch; the states; features, None for tokens."""
    params, batch, h_0 = problem
    layers = [tuple(map(np.array, (cell.w_xh, cell.w_hh, cell.b_h))) for cell in params.cells]
    features = None if np.issubdtype(batch.inputs.dtype, np.integer) else np.array(batch.inputs)
    batch = type(batch)(*(None if x is None else np.array(x) for x in batch))
    return [*layers, tuple(map(np.array, params.readout))], batch, [np.array(h) for h in h_0], features


def central_differences(case, problem, step=2e-6):
    """The gradient by central differences over every entry, as a list of leaves in JAX's order."""
    p = loops._read(*problem, case.reduction)
    differences = []
    for leaf in jax.tree.leaves(Gradients(p.params, p.h_0, None if p.tokens else p.xs)):
        d_leaf = np.zeros_like(leaf)
        for index in np.ndindex(*leaf.shape):
            original = leaf[index]
            leaf[index] = original + step
            above = loops._total_loss(p, case.loss)
            leaf[index] = original - step
            below = loops._total_loss(p, case.loss)
            leaf[index] = original
            d_leaf[index] = (above - below) / (2 * step)
        differences.append(d_leaf)
    return differences
