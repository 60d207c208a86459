"""`python benchmarks/race`, from any folder."""

import sys
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])
try:
    command = import_module("race.command")
except ModuleNotFoundError as e:
    sys.exit(f"The race needs {e.name}: python3 -m pip install -e '.[race]'")
sys.exit(command.main())
