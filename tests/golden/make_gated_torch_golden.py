"""What `nn.GRU`, `nn.LSTM` and `nn.RNN` of torch compute, written to `gated_torch.npz` for tests/test_gated_torch.py.

Run by hand:

    pip install torch numpy
    python tests/golden/make_gated_torch_golden.py

Stacks of one to three layers, in both directions, and with packed sequences, all in float64. Weights have torch's names
and shapes. The results of a case are `lstm-2.ys` and so on. The gradients are torch's, of the two sums in `SUMS` of
make_gated_golden.py; this axis is first.
"""

import numpy as np
from make_gated_golden import PARTS, drawn, flat, save

KINDS = {
    "1": {"num_layers": 1},
    "2": {"num_layers": 2},
    "3": {"num_layers": 3},
    "2-bidirectional": {"num_layers": 2, "bidirectional": True},
    "2-packed": {"num_layers": 2},
    "2-bidirectional-packed": {"num_layers": 2, "bidirectional": True},
}
CASES = [f"{cell}-{kind}" for cell in ("gru", "lstm") for kind in KINDS] + ["rnn-2", "rnn-2-bidirectional-packed"]
TIME, IN, HID = 6, 2, 3
LENGTHS = (4, 6, 1)  # of packed sequences


def golden(torch) -> dict[str, np.ndarray]:
    """All arrays by name, each float64 except for the version."""
    rng, arrays = np.random.default_rng(1), {"versions": np.array([f"torch {torch.__version__}"])}
    for case in CASES:
        arrays |= {f"{case}.{name}": array for name, array in _case(torch, rng, case).items()}
    return arrays


def _case(torch, rng, case):
    """The problem and the results of one case."""
    cell, kind = case.split("-", 1)
    module = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM, "rnn": torch.nn.RNN}[cell]
    model = module(IN, HID, dtype=torch.float64, **KINDS[kind])
    shapes = {name: tuple(w.shape) for name, w in model.named_parameters()}
    directions = 2 if model.bidirectional else 1
    steps, states = (TIME, len(LENGTHS)), (directions * model.num_layers, len(LENGTHS), HID)
    names = [str(i) for i in range(PARTS[cell])]
    problem = {
        "weights": {name: drawn(rng, 0.3 if "bias" in name else 0.8, *shape) for name, shape in shapes.items()},
        "inputs": drawn(rng, 0.7, *steps, IN),
        "carry": {name: drawn(rng, 0.5, *states) for name in names},
    }
    factors = {
        "ys": drawn(rng, 1.0, *steps, directions * HID),
        "last": {name: drawn(rng, 1.0, *states) for name in names},
    }
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in flat(problem).items()}
    carry = [leaves[f"carry.{name}"] for name in names]
    ys, last = torch.func.functional_call(
        model,
        {name: leaves[f"weights.{name}"] for name in shapes},
        (_packed(torch, leaves["inputs"], "packed" in kind), tuple(carry) if len(carry) > 1 else carry[0]),
    )
    if "packed" in kind:
        ys, lengths = torch.nn.utils.rnn.pad_packed_sequence(ys, total_length=TIME)
        assert tuple(lengths) == LENGTHS
    last = dict(zip(names, last if isinstance(last, tuple) else (last,), strict=True))
    of_ys = (torch.tensor(factors["ys"]) * ys).sum()
    of_last = sum((torch.tensor(factors["last"][name]) * last[name]).sum() for name in names)
    gradients = [
        torch.autograd.grad(total, list(leaves.values()), retain_graph=True) for total in (of_ys, of_ys + of_last)
    ]
    named = {name: np.stack(both) for name, *both in zip(leaves, *gradients, strict=True)}
    assert all(np.any(both) for gradient in named.values() for both in gradient), "a gradient is zero"
    found = {"ys": ys.detach(), "last": {name: s.detach() for name, s in last.items()}, "gradients": named}
    return flat({"problem": problem, "factors": factors, **found})


def _packed(torch, xs, packed):
    if not packed:
        return xs
    return torch.nn.utils.rnn.pack_padded_sequence(xs, torch.tensor(LENGTHS), enforce_sorted=False)


if __name__ == "__main__":
    import torch

    save("torch", golden(torch))
