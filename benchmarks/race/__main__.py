"""`python benchmarks/race`, from any folder."""

import sys
from importlib import import_module
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])
sys.exit(import_module("race.command").main())
