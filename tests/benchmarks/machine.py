"""On what a benchmark ran, for its page and its JSON."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("torch", "transformers", "lightgbm", "lenskit")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, accelerator, packages, and the date (UTC)."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "packages": {name: number for name in PACKAGES if (number := _version(name))},
    }


def described(found: dict[str, Any]) -> str:
    """A machine in one line of Markdown."""
    accelerator = found["accelerator"] or "no GPU"
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['date'][:10]}, {found['cores']} cores ({found['processor']}), {found['threads']} threads, "
        f"{found['memory_gib']} GiB, {accelerator}; {found['system']}; {packages}"
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # a machine for training alone has no rivals
        return None
