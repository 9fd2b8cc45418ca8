"""How much memory a step may use: a setting, or half of what the machine or its container has."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from expectations.errors import SettingError

VARIABLE = "RECOMMENDER_MEMORY"
FRACTION = 0.5
_SIZE = re.compile(r"\d+(\.\d+)?\s*([KMGT]i?)?B", re.IGNORECASE)
_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")


def memory_limit(environ: Mapping[str, str], cgroup: Path = Path("/sys/fs/cgroup")) -> str:
    """What DuckDB takes as memory_limit: RECOMMENDER_MEMORY such as "6GB", else half of the memory there is.

    Args:
        environ: the environment.
        cgroup: where the system says what a container may use (version 2, then 1).

    Raises:
        SettingError: RECOMMENDER_MEMORY is not a size.
    """
    given = environ.get(VARIABLE)
    return memory_size(given, VARIABLE) if given else f"{int(machine_memory(cgroup) * FRACTION) // 2**20}MiB"


def memory_size(given: str, setting: str) -> str:
    """A size such as "6GB", as it was given.

    Raises:
        SettingError: it is none; the message names the setting.
    """
    if not _SIZE.fullmatch(given.strip()):
        raise SettingError(f"{setting} is {given!r}, which is not a size; write one such as 6GB")
    return given.strip()


def machine_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of the machine, or of the container where that is less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUPS:
        try:
            found.append(int((cgroup / name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found)
