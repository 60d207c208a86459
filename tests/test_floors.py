"""The layout: folders import only from floors above, the public names are as listed, the core needs no extras."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import rnn_jax

ROOT = Path(__file__).parents[1]
SOURCE = Path(rnn_jax.__file__).parent
FLOORS = [  # a module imports from its own floor and from those before it
    *(
        ["_require", "_serialization", "_mesh"],
        ["_cells"],
        ["_types", "_numerics", "_checks", "_batches", "_results"],
    ),
    *(["_reporting"], ["_saving"], ["_losses"], ["interop"], ["initializers"], ["_nn"], ["_gradients"]),
    *(["_training", "_ridge"], ["data"], ["tasks"], ["verify"], ["analysis"], ["dynamics"], ["typing"]),
    *(["experiments"], ["_cli"], ["saving"], ["__main__"]),
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
NAMESPACES = [
    *("analysis", "data", "dynamics", "experiments", "initializers", "interop"),
    *("saving", "tasks", "typing", "verify"),
]
ON_THE_SURFACE = ("experiments", "_cli")  # these use the library as its users do


def module_name(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = sorted(module_name(path) for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")
FOLDERS = sorted({path.parent for path in SOURCE.rglob("*.py")} - {SOURCE})


def imports_of(name):
    """The modules of this package that `name` imports, anywhere in its text; `''` is the public surface."""
    tree = ast.parse((SOURCE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
    package = name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, *(node.module.split(".") if node.module else [])])
            inside = [f"{target}.{alias.name}".lstrip(".") for alias in node.names]
            yield from ([target] if target in MODULES else [one if one in MODULES else target for one in inside])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            if "__package__" not in ast.unparse(node):
                continue  # of another package
            named = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            target = named.value.rstrip(".")
            level = len(target) - len(target.lstrip("."))
            yield ".".join([*package[: len(package) - level + 1], target.lstrip(".")])


def test_every_part_has_a_floor():
    assert {name.split(".")[0] for name in MODULES} == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    part = name.split(".")[0]
    for imported in imports_of(name):
        if imported == "":
            assert part in ON_THE_SURFACE, f"{name} imports the public surface, which stands above it"
        else:
            above = FLOOR[imported.split(".")[0]] > FLOOR[part]
            assert not above, f"{name} imports {imported}, which stands above it"


def test_no_import_goes_round():
    """Within a floor, too: the order is its own business, but there is one."""
    imports = {name: {one for one in imports_of(name) if one in MODULES} for name in MODULES}
    while imports:
        lowest = {name for name, needed in imports.items() if not needed & imports.keys()}
        assert lowest, f"these import each other: {sorted(imports)}"
        imports = {name: needed for name, needed in imports.items() if name not in lowest}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: module_name(folder))
def test_a_folder_is_seen_at_a_glance(folder):
    """At most 14 modules, none longer than 300 lines; each is named in the first lines, which are few."""
    modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
    assert 0 < len(modules) <= 14
    words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert len(words.splitlines()) <= 10
    if folder.name != "catalogue":
        parts = {path.stem for path in modules} | {f"{path.name}/" for path in folder.iterdir() if path in FOLDERS}
        assert not {part for part in parts if f"`{part}`" not in words}
        assert not {word for word in words.split("`")[1::2] if word.islower() and "_" == word[0]} - parts


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=module_name)
def test_no_file_has_two_ideas(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_private_names_are_imported_from_where_they_are():
    """Tests and benchmarks that look inside: the module is there, and has the name as its own."""
    for path in (*(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            target = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if not target.startswith("rnn_jax.") or target.removeprefix("rnn_jax.") in NAMESPACES:
                continue
            inside = target.removeprefix("rnn_jax.")
            for alias in node.names:
                if f"{inside}.{alias.name}" in MODULES or (SOURCE / inside.replace(".", "/") / "__init__.pyi").exists():
                    continue
                assert inside in MODULES, f"{path.name} imports from {target}"
                tree = ast.parse((SOURCE / f"{inside.replace('.', '/')}.py").read_text(encoding="utf-8"))
                imported = {
                    a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names
                }
                assert alias.name not in imported, f"{path.name} imports {alias.name} from {target}, which imports it"


def test_the_public_surface():
    """What design and documentation promise is there, at most 50 names and the namespaces."""
    promised = """init_params zero_state step step_forward step_backward unroll unroll_bptt apply apply_step readout
    bidirectional generate categorical greedy feedback make_grad_fn GRADIENTS LOSSES pointwise
    Autodiff Stepwise BPTT Blocked Truncated Adaptive Randomised LastSteps BurnIn Sharded Plan plan_memory plan_cost
    make_trainer clip_gradients clipped_sgd CellParams LeakyParams ReadoutParams Params Batch Gradients
    check_gradients check_batch"""
    assert set(promised.split()) <= set(rnn_jax.__all__)
    assert set(NAMESPACES) <= set(rnn_jax.__all__) and 35 <= len(rnn_jax.__all__) - len(NAMESPACES) <= 54
    with pytest.raises(AttributeError):
        _ = rnn_jax.no_such_name


@pytest.mark.parametrize("name", ["", *NAMESPACES])
def test_every_public_name_resolves_and_says_what_it_is(name):
    space = getattr(rnn_jax, name) if name else rnn_jax
    assert space.__doc__
    public = getattr(space, "__all__", None) or [one for one in dir(space) if not one.startswith("_")]
    for one in public:
        value = getattr(space, one)
        assert not (inspect.isroutine(value) or inspect.isclass(value)) or value.__doc__, one
    if name and hasattr(space, "__all__"):
        assert set(space.__all__) <= set(dir(space))


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_the_core_needs_no_extra_and_changes_no_setting():
    code = """
import sys
extras = "tyro", "tqdm", "matplotlib", "orbax", "safetensors", "pandas", "sklearn", "statsmodels"
others = "chex", "beartype", "pytest", "torch", "keras", "flax", "haiku", "equinox"
for extra in extras + others:
    sys.modules[extra] = None  # importing it fails
import jax
before = dict(jax.config.values)
import rnn_jax
for name in rnn_jax.__all__:
    for inside in getattr(getattr(rnn_jax, name), "__all__", ()) if name != "experiments" else ():
        getattr(getattr(rnn_jax, name), inside)
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
    result = run_python("import sys, rnn_jax, rnn_jax._cli.main; assert 'jax' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert rnn_jax.__version__ == version("rnn-jax-bptt")
