"""How much memory a step may use: a setting, or half of what the machine or its container has."""

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "RECOMMENDER_MEMORY"
FRACTION = 0.5
_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(environ: Mapping[str, str], cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """What DuckDB takes as memory_limit: RECOMMENDER_MEMORY such as "6GB", else half of the memory there is.

    Args:
        environ: the environment.
        cgroup: where the system says what a container may use (version 2, then 1).
    """
    return environ.get(VARIABLE) or f"{int(machine_memory(cgroup) * FRACTION) // 2**20}MiB"


def machine_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of the machine, or of the container where that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUPS:
        try:
            found.append(int((cgroup / name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found)
