"""The third witness: NumPy loops, one sequence at a time, no JAX. Steps that do not exist are deleted first."""

import numpy as np

PHI = {"tanh": np.tanh, "relu": lambda a: np.maximum(a, 0.0), "identity": lambda a: a}
D_PHI = {"tanh": lambda a: 1 / np.cosh(a) ** 2, "relu": lambda a: 1.0 * (a > 0), "identity": np.ones_like}


def one_hot(index, size):
    vector = np.zeros(size)
    vector[index] = 1.0
    return vector


def softmax(y):
    e = np.exp(y - y.max())
    return e / e.sum()


def total_loss(case, params, batch, h_0, features):
    return walk(case, params, batch, h_0, features, backward=False)[0]


def loss_and_gradients(case, params, batch, h_0, features):
    """`(loss, h_T, (d_params, d_h_0, d_features))`; the gradients as a list of leaves in JAX's order."""
    return walk(case, params, batch, h_0, features, backward=True)


def walk(case, params, batch, h_0, features, *, backward):
    """`params`: per layer (w_xh, w_hh, b_h), then (w_hy, b_y), all NumPy; `features` None for tokens."""
    layers, (w_hy, b_y) = params[:-1], params[-1]
    in_size = layers[0][0].shape[0]
    inputs = np.asarray(batch.inputs) if features is None else features
    targets = np.asarray(batch.targets)
    time, last = inputs.shape[0], targets.shape[0]
    axes = inputs.shape[1:] if features is None else inputs.shape[1:-1]
    mask = np.ones((time, *axes), bool) if batch.mask is None else np.asarray(batch.mask)
    reset = np.zeros((time, *axes), bool) if batch.reset is None else np.asarray(batch.reset)
    weights = mask[time - last :].astype(float) if batch.weights is None else np.asarray(batch.weights)
    if case.reduction == "mean":
        weights = weights / weights.sum() if weights.sum() else 0 * weights

    loss = 0.0
    h_T = [np.array(h) for h in h_0]
    d_layers = [[np.zeros_like(w) for w in layer] for layer in layers]
    d_w_hy, d_b_y = np.zeros_like(w_hy), np.zeros_like(b_y)
    d_h_0 = [np.zeros_like(h) for h in h_0]
    d_features = None if features is None else np.zeros_like(features)

    for b in np.ndindex(*axes):
        exists = [t for t in range(time) if mask[(t, *b)]]
        n = len(exists)
        xs = [one_hot(inputs[(t, *b)], in_size) if features is None else features[(t, *b)] for t in exists]
        cuts = [bool(reset[(t, *b)]) for t in exists]
        met, pre, out = [], [], []  # per layer: the state each step met, its a_t, its h_t
        below = xs
        for (w_xh, w_hh, b_h), h in zip(layers, h_0, strict=True):
            h_tm1 = np.array(h[b])
            met.append([]), pre.append([]), out.append([])
            for t in range(n):
                h_tm1 = np.zeros_like(h_tm1) if cuts[t] else h_tm1
                a_t = below[t] @ w_xh + h_tm1 @ w_hh + b_h
                met[-1].append(h_tm1), pre[-1].append(a_t), out[-1].append(PHI[case.activation](a_t))
                h_tm1 = out[-1][-1]
            below = out[-1]
        for layer in range(len(layers)):
            h_T[layer][b] = out[layer][-1] if n else h_0[layer][b]

        d_read = [np.zeros(w_hy.shape[0]) for _ in range(n)]  # of the highest layer
        d_first = np.zeros(w_hy.shape[0])
        for t in range(time - last, time):
            w, target = weights[(t - time + last, *b)], targets[(t - time + last, *b)]
            if w == 0:
                continue
            before = [i for i, e in enumerate(exists) if e <= t]  # a step that does not exist reads the state before
            h = out[-1][before[-1]] if before else h_0[-1][b]
            y = h @ w_hy + b_y
            if case.loss == "cross_entropy":
                p = softmax(y)
                loss += -w * np.log(p[target])
                d_y = w * (p - one_hot(target, len(p)))
            else:
                loss += w * np.sum((y - target) ** 2)
                d_y = 2 * w * (y - target)
            d_w_hy += np.outer(h, d_y)
            d_b_y += d_y
            if before:
                d_read[before[-1]] = d_read[before[-1]] + w_hy @ d_y
            else:
                d_first = d_first + w_hy @ d_y
        if not backward:
            continue

        d_h_0[-1][b] += d_first
        for layer in reversed(range(len(layers))):
            w_xh, w_hh, _ = layers[layer]
            d_below = [None] * n
            d_h_next = np.zeros(w_hh.shape[0])
            for t in reversed(range(n)):
                d_a = (d_read[t] + d_h_next) * D_PHI[case.activation](pre[layer][t])
                x = xs[t] if layer == 0 else out[layer - 1][t]
                d_layers[layer][0] += np.outer(x, d_a)
                d_layers[layer][1] += np.outer(met[layer][t], d_a)
                d_layers[layer][2] += d_a
                d_below[t] = w_xh @ d_a
                d_h_next = np.zeros_like(d_h_next) if cuts[t] else w_hh @ d_a
            d_h_0[layer][b] += d_h_next
            d_read = d_below
        if features is not None:
            for i, t in enumerate(exists):
                d_features[(t, *b)] = d_read[i]

    gradients = [leaf for layer in d_layers for leaf in layer] + [d_w_hy, d_b_y] + d_h_0
    return loss, h_T, gradients + ([] if features is None else [d_features])


def as_numpy(problem):
    """The witness's arguments from the library's."""
    params, batch, h_0 = problem
    layers = [tuple(map(np.array, (cell.w_xh, cell.w_hh, cell.b_h))) for cell in params.cells]
    features = None if np.issubdtype(batch.inputs.dtype, np.integer) else np.array(batch.inputs)
    batch = type(batch)(*(None if x is None else np.array(x) for x in batch))
    return [*layers, tuple(map(np.array, params.readout))], batch, [np.array(h) for h in h_0], features


def central_differences(case, problem, step=2e-6):
    """The gradient of `total_loss` by central differences over every entry, as a list of leaves in JAX's order."""
    params, batch, h_0, features = as_numpy(problem)
    leaves = [leaf for part in params for leaf in part] + list(h_0) + ([] if features is None else [features])
    differences = []
    for leaf in leaves:
        d_leaf = np.zeros_like(leaf)
        for index in np.ndindex(*leaf.shape):
            original = leaf[index]
            leaf[index] = original + step
            above = total_loss(case, params, batch, h_0, features)
            leaf[index] = original - step
            below = total_loss(case, params, batch, h_0, features)
            leaf[index] = original
            d_leaf[index] = (above - below) / (2 * step)
        differences.append(d_leaf)
    return differences
