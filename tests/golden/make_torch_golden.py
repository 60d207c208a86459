"""What `torch.nn.RNN` and `torch.nn.Linear` compute, written to `torch_rnn.npz` for tests/test_torch.py. Run by hand:

    pip install torch numpy
    python tests/golden/make_torch_golden.py

One problem for all cases, in the layout of rnn_jax; a stack of n layers is made of the first n. The results of a case
are `tanh-2.ys` and so on; what there is for each loss, the value and the gradients, has the axis of `LOSSES` first.
"""

from pathlib import Path

import numpy as np

PATH = Path(__file__).with_name("torch_rnn.npz")
ACTIVATIONS = ("tanh", "relu")
NUM_LAYERS = (1, 2, 3)
LOSSES = ("squared_error", "cross_entropy")  # summed over all steps and features; the mean over steps
TIME, BATCH, IN, HID, OUT = 9, 3, 4, 5, 3
GAIN = 1.4


def golden(torch) -> dict[str, np.ndarray]:
    """All arrays by name, each float64 but for the classes and the version."""
    weights, data = _draw(np.random.default_rng(0))
    arrays = {"torch_version": np.array([torch.__version__]), **data, **_in_layout(weights, np.add)}
    for activation in ACTIVATIONS:
        for num_layers in NUM_LAYERS:
            case = _case(torch, activation, num_layers, weights, data)
            arrays |= {f"{activation}-{num_layers}.{name}": array for name, array in case.items()}
    return arrays


def _draw(rng):
    """Weights by torch's names, and the data. No bias and no `h_0` is zero, and the recurrence does not forget."""

    def normal(scale, *shape):
        return scale * rng.standard_normal(shape)

    weights = {"readout.weight": normal(HID**-0.5, OUT, HID), "readout.bias": normal(0.3, OUT)}
    for layer in range(max(NUM_LAYERS)):
        in_size = HID if layer else IN
        rotation, _ = np.linalg.qr(rng.standard_normal((HID, HID)))
        weights[f"rnn.weight_ih_l{layer}"] = normal(in_size**-0.5, HID, in_size)
        weights[f"rnn.weight_hh_l{layer}"] = GAIN * rotation + normal(0.1, HID, HID)
        weights[f"rnn.bias_ih_l{layer}"] = normal(0.3, HID)
        weights[f"rnn.bias_hh_l{layer}"] = normal(0.3, HID)
    data = {
        "inputs": normal(0.7, TIME, BATCH, IN),
        "h_0": normal(0.5, max(NUM_LAYERS), BATCH, HID),
        "targets.squared_error": normal(1.0, TIME, BATCH, OUT),
        "targets.cross_entropy": rng.integers(0, OUT, (TIME, BATCH)),
    }
    return weights, data


def _case(torch, activation, num_layers, weights, data):
    """Outputs, last states, and for each loss its value and gradients."""
    model = torch.nn.ModuleDict(
        {
            "rnn": torch.nn.RNN(IN, HID, num_layers, nonlinearity=activation, dtype=torch.float64),
            "readout": torch.nn.Linear(HID, OUT, dtype=torch.float64),
        }
    )
    model.load_state_dict({name: torch.tensor(weights[name]) for name in model.state_dict()})
    inputs = torch.tensor(data["inputs"], requires_grad=True)
    h_0 = torch.tensor(data["h_0"][:num_layers], requires_grad=True)
    vectors, classes = (torch.tensor(data[f"targets.{loss}"]) for loss in LOSSES)

    hs, h_T = model["rnn"](inputs, h_0)
    ys = model["readout"](hs)
    (d_xs,) = torch.autograd.grad(ys[-1].sum(), inputs, retain_graph=True)
    assert d_xs[0].norm() > 0.05 * d_xs[-1].norm(), "the last output has forgotten the first step"
    losses = (
        (ys - vectors).square().sum(),
        torch.nn.functional.cross_entropy(ys.flatten(0, 1), classes.flatten()),
    )
    leaves = dict(model.named_parameters()) | {"h_0": h_0, "inputs": inputs}
    gradients = [_gradients(torch, loss, leaves) for loss in losses]
    return {
        "ys": ys.detach().numpy(),
        "h_T": h_T.detach().numpy(),
        "loss": np.array([loss.item() for loss in losses]),
        **{f"gradients.{name}": np.stack([d[name] for d in gradients]) for name in gradients[0]},
    }


def _gradients(torch, loss, leaves):
    values = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    d = {name: value.numpy() for name, value in zip(leaves, values, strict=True)}
    assert all(np.any(value) for value in d.values()), "a gradient is zero"
    return _in_layout(d, _equal) | {name: d[name] for name in ("h_0", "inputs")}


def _in_layout(named, join):
    """Torch's weights, or their gradients, as rnn_jax has them; `join` makes one bias of the two of a cell."""
    ours = {"params.readout.w_hy": named["readout.weight"].T, "params.readout.b_y": named["readout.bias"]}
    for layer in range(sum(name.startswith("rnn.weight_ih") for name in named)):
        cell = f"params.cells[{layer}]"
        ours[f"{cell}.w_xh"] = named[f"rnn.weight_ih_l{layer}"].T
        ours[f"{cell}.w_hh"] = named[f"rnn.weight_hh_l{layer}"].T
        ours[f"{cell}.b_h"] = join(named[f"rnn.bias_ih_l{layer}"], named[f"rnn.bias_hh_l{layer}"])
    return ours


def _equal(d_bias_ih, d_bias_hh):
    np.testing.assert_allclose(d_bias_ih, d_bias_hh, rtol=0, atol=1e-13 * np.max(np.abs(d_bias_ih)))
    return d_bias_ih


if __name__ == "__main__":
    import torch

    np.savez_compressed(PATH, **golden(torch))
    print(f"{PATH.name}: {PATH.stat().st_size} bytes, torch {torch.__version__}")
