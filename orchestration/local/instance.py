"""Dagster's instance file and the environment of every program that we start.

Secrets travel in the environment only: `dagster.yaml` names a variable, never a password.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from expectations.errors import SettingError
from expectations.storage.atomic import write_text
from features.sources import COMPLETE_JOURNEY
from orchestration.home import VARIABLE, Home
from orchestration.local.postgres import Address

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that holds our packages: programs start there, so that they find them."""

DAGSTER_URL = "RECOMMENDER_DAGSTER_URL"
MAX_CONCURRENT_RUNS = 1
"""Two trainings at once on one machine take longer than one after the other."""

QUIET = {
    "BENTOML_DO_NOT_TRACK": "true",  # literally: `1` is not understood
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""Nothing that we start reports to anybody."""

DEFAULTS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}
"""The user may set these otherwise: models come from pip or the bundle, so nothing is downloaded."""


def write_instance(home: Home) -> Path:
    """Write `dagster.yaml` into the home's DAGSTER_HOME.

    Returns:
        The file. It is JSON, which YAML contains.
    """
    settings = {
        "storage": {"postgres": {"postgres_url": {"env": DAGSTER_URL}}},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "run_coordinator": {"module": "dagster", "class": "QueuedRunCoordinator"},
        "concurrency": {"runs": {"max_concurrent_runs": MAX_CONCURRENT_RUNS}},
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 300},
        "compute_logs": {
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(home.logs / "steps")},
        },
        "schedules": {"use_threads": True, "num_workers": 2},
        "sensors": {"use_threads": True, "num_workers": 2},
        "retention": {
            "schedule": {"purge_after_days": 90},
            "sensor": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}},
            "auto_materialize": {"purge_after_days": {"skipped": 1, "failure": 30, "success": 30}},
        },
    }
    path = home.dagster / "dagster.yaml"
    write_text(path, json.dumps(settings, indent=2) + "\n")
    return path


def source_file(name: str | None) -> Path:
    """The absolute path of a `source.toml`; Complete Journey where none is named.

    Raises:
        SettingError: there is no such file.
    """
    path = Path(name).expanduser().absolute() if name else COMPLETE_JOURNEY
    path = path / "source.toml" if path.is_dir() else path
    if not path.is_file():
        raise SettingError(f"there is no source file {path}; give the path of your source.toml")
    return path


def child_environment(
    home: Home, address: Address, source: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment of the programs that we start: ours, and where everything is.

    Args:
        home: the home folder.
        address: the PostgreSQL server.
        source: absolute path of the `source.toml`.
        environ: the environment to build on; its settings win over `DEFAULTS`.
    """
    return {
        **DEFAULTS,
        **environ,
        **QUIET,
        VARIABLE: str(home.root),
        "RECOMMENDER_SOURCE": str(source),
        "RECOMMENDER_POSTGRES_URL": address.url(address.database()),
        DAGSTER_URL: address.url("dagster"),
        "RECOMMENDER_FEAST_URL": address.url("feast"),
        "DAGSTER_HOME": str(home.dagster),
        "BENTOML_HOME": str(home.bentoml),
    }
