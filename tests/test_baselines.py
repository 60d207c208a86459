"""The n-gram models to which a run is compared."""

import numpy as np

from rnn_jax.data import _ngrams as baselines


def test_ngrams_against_counting_by_hand():
    """Relative frequencies by brute force, mixed by the weights under which the held-back text is most probable."""
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.geometric(0.4, 3000) - 1, 5)
    tokens[2::3] = (tokens[1::3] + tokens[::3]) % 6  # every third symbol follows from the two before
    at = np.arange(2800, 3000)
    parts = baselines._mixture_parts(tokens[:2800], tokens, at, 6, len(baselines.NAMES))
    text = tokens[:2800].tolist()
    for row, i in zip(parts, at, strict=True):
        for order in (1, 2, 3):
            gram = tokens[i - order + 1 : i + 1].tolist()
            windows = [text[j : j + order] for j in range(len(text) - order + 1)]
            same_context = [w for w in windows if w[:-1] == gram[:-1]]
            expected = same_context.count(gram) / len(same_context) if same_context else 0
            np.testing.assert_allclose(row[order], expected, rtol=1e-12)
    bits = baselines.ngram_bits(tokens[:2800], tokens[2800:], 6, at - 2800)
    assert bits["trigram"] < bits["bigram"] <= bits["unigram"] + 0.05 < np.log2(6)
    best = min(-np.mean(np.log2(parts[:, :2] @ [share, 1 - share])) for share in np.linspace(1e-6, 1 - 1e-6, 101))
    assert best <= bits["unigram"] < best + 0.01
