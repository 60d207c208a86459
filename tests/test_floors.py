"""The house: imports point down, the surface is what it says, the core stands without its extras."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_jax

SOURCE = Path(rnn_jax.__file__).parent
FLOORS = {
    "ground": [
        *("_activations", "_require", "_cells", "_serialization", "_types"),
        *("_checks", "_results", "_numerics", "_sharding"),
        *("_params", "_losses", "_text", "_sequences", "_dropout", "_events", "_layer", "_tasks"),
    ],
    "cell": ["_affine", "_one_step"],
    "network": ["_unroll", "_apply", "_generate"],
    "engine": [
        "_plan",
        "_autodiff",
        "_definitions",
        "_by_hand",
        "_stepwise",
        "_bptt",
        "_blocked",
        "_primitive",
        "_unroll_bptt",
        "_bidirectional",
        "_truncated",
        "_adaptive",
        "_randomised",
        "_sharded",
    ],
    "methods": ["_methods"],
    "train": ["_trainer"],
    "study": [
        *("_problems", "_numpy_witnesses", "_witnesses", "_report", "_findings", "_clock"),
        *(
            "_differences",
            "_subject",
            "_compared",
            "_next_to",
            "_steps",
            "_check_gradients",
            "_anatomy",
            "_norm_penalty",
        ),
        "_truncation_report",
        *("_jacobians", "_lyapunov", "_fixed_points"),
    ],
    "app": [
        *("app.errors", "app.console", "app.config", "app.limits", "app.corpus", "app.lock"),  # these import no jax,
        *("app.settings_file", "app.run_folder", "app.metrics"),  # nor do these
        "app.jax_settings",
        *("app.baselines", "app.plots", "app.advice", "app.data", "app.model", "app.checkpoint"),
        *("app.sample", "app.watch", "app.truncation", "app.examine"),
        *("app.verdict", "app.html_page", "app.anatomy_page"),
        *("app.anatomy", "app.gradcheck", "app.loop", "app.train"),
    ],
    "experiments": [
        *("experiments.catalogue", "experiments.cells", "experiments.training", "experiments.tables"),
        *("experiments.report", "experiments.experiment", "experiments.parts", "experiments.data"),
        *("experiments.notebooks", "experiments.by_hand_vs_autodiff", "experiments.truncation"),
        *("experiments.clipping", "experiments.long_memory", "experiments.temporal_order", "experiments.digits"),
        *("experiments.forecast", "experiments.text", "experiments.command"),
    ],
    "command": ["app.cli"],
}
ORDER = [module for modules in FLOORS.values() for module in modules]


def module_name(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = sorted(module_name(path) for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def imports_of(name):
    """The modules of this package that `name` imports, anywhere in its text; `''` is the public surface."""
    tree = ast.parse((SOURCE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                for alias in node.names:
                    inside = ".".join([*base, alias.name])
                    yield inside if inside in ORDER else ".".join(base)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            target = node.args[0].value
            level = len(target) - len(target.lstrip("."))
            yield ".".join([*package[: len(package) - level + 1], target.lstrip(".")])


def test_every_module_has_a_floor():
    assert sorted(ORDER) == MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    for imported in imports_of(name):
        if imported == "":
            assert name.startswith(("app.", "experiments.")), (
                f"{name} imports the public surface, which stands above it"
            )
        else:
            assert ORDER.index(imported) < ORDER.index(name), f"{name} imports {imported}, which stands above it"


def test_the_public_surface():
    """What design and documentation promise is there, and every name resolves and has a docstring or is data."""
    promised = """init_params step step_forward step_backward unroll unroll_bptt apply readout make_grad_fn GRADIENTS
    Autodiff Stepwise BPTT Blocked Truncated Adaptive Randomised LastSteps Sharded Method Objective
    make_trainer clipped_sgd generate categorical greedy feedback CellParams ReadoutParams Params Batch Gradients
    GradFn Trainer TrainState StepInfo LOSSES pointwise identity spectral_radius orthogonal normal check_batch
    check_gradients"""
    assert set(promised.split()) <= set(rnn_jax.__all__)
    for name in rnn_jax.__all__:
        value = getattr(rnn_jax, name)
        assert not (inspect.isroutine(value) or inspect.isclass(value)) or value.__doc__, name
    with pytest.raises(AttributeError):
        _ = rnn_jax.no_such_name


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_core_needs_no_extra_and_changes_no_setting():
    code = """
import sys
for extra in ("tyro", "tqdm", "matplotlib", "orbax", "sklearn", "statsmodels", "chex", "beartype", "pytest"):
    sys.modules[extra] = None  # importing it fails
import jax
before = dict(jax.config.values)
import rnn_jax
for name in rnn_jax.__all__:
    getattr(rnn_jax, name)
assert dict(jax.config.values) == before
params = rnn_jax.init_params(jax.random.key(0), input_size=2, hidden_size=3, output_size=2)
batch = rnn_jax.Batch(inputs=jax.numpy.array([0, 1]), targets=jax.numpy.array([1, 0]))
print(rnn_jax.make_grad_fn("bptt", loss="cross_entropy")(params, batch, rnn_jax.zero_state(params))[0][0])
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert 0 < float(result.stdout) < 5


def test_importing_the_package_imports_no_jax():
    """So that `rnn-jax --help` answers at once."""
    result = run_python("import sys, rnn_jax, rnn_jax.app.cli; assert 'jax' not in sys.modules")
    assert result.returncode == 0, result.stderr
