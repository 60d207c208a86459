"""The record of the machine that is stored with every result: what it is, the versions, the commit, the date."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("rnn-jax-bptt", "jax", "jaxlib", "numpy", "optax")
SETTINGS = ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CHECKOUT = Path(__file__).parents[3]


def machine_record(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """What a reader needs to judge a result that was measured or computed here. No names of people, no paths.

    Args:
        packages: the distributions whose versions are recorded; one that is not installed is left out.

    Returns:
        Values for a JSON file: the processor `cpu`, the number of `cores` that this process may use, the machine's
        memory `memory_mib` and its `load` (the processes that want a core, averaged over a minute; both None where the
        system does not tell), `system`, the version of `python`, `versions` by distribution, the variables of the
        `environment` that change speed, `commit` (None unless the package is run from its git checkout; it ends in
        "-dirty" if files were changed since), and the `date`.

    >>> record = machine_record(["numpy"])
    >>> list(record["versions"]), record["cores"] >= 1
    (['numpy'], True)
    """
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_mib": memory_mib(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed(packages),
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "commit": commit(CHECKOUT),
        "date": datetime.date.today().isoformat(),
    }


def machine_line(record: dict[str, Any]) -> str:
    """The machine of a record in one line.

    >>> machine_line({"cpu": "A CPU", "cores": 2, "memory_mib": 7931, "system": "Linux x86_64"})
    'A CPU, 2 cores, 8 GiB, Linux x86_64'
    """
    memory = record.get("memory_mib")
    words = [record["cpu"], f"{record['cores']} cores", memory and f"{memory / 1024:.0f} GiB", record["system"]]
    return ", ".join(filter(None, words))


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's own name, where the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def memory_mib() -> int | None:
    """The machine's memory, in MiB."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):  # no such function, or no such name
        return None


def installed(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit(checkout: Path) -> str | None:
    """The commit of a checkout, or None if the folder is not a checkout, or git cannot tell."""
    if not (checkout / ".git").exists():  # an installed package may lie inside a checkout of something else
        return None
    command = ["git", "-C", str(checkout), "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
