"""Which of our environment variables each program is given; what is not ours, all of them have.

Runs are children of the daemon's code server, which needs what its sensors send alerts with:
`keep_from_children` leaves that out of what it hands down.
"""

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from expectations.contracts.ledger import URL_VARIABLE as LEDGER_URL
from expectations.contracts.source import read_source
from expectations.errors import SettingError
from orchestration.home import VARIABLE

DAGSTER_URL, SOURCE = "RECOMMENDER_DAGSTER_URL", "RECOMMENDER_SOURCE"
MAX_RUN_HOURS, DEFAULT_RUN_HOURS = "RECOMMENDER_MAX_RUN_HOURS", 24.0
UI_URL, DATA_DOCS_URL, TENSORBOARD_URL = (
    "RECOMMENDER_UI_URL",
    "RECOMMENDER_DATA_DOCS_URL",
    "RECOMMENDER_TENSORBOARD_URL",
)
RETENTION_DAYS = "RECOMMENDER_RETENTION_DAYS"
SHOP = "the variable that the source's url_env names"
ALERTS = ("RECOMMENDER_SLACK_WEBHOOK", "RECOMMENDER_ALERT_*", "RECOMMENDER_SMTP_*")

_DEFINITIONS = (
    *(VARIABLE, SOURCE, DAGSTER_URL),
    *("RECOMMENDER_RECIPE", "RECOMMENDER_GATE", "RECOMMENDER_MEMORY", MAX_RUN_HOURS),
    *(UI_URL, DATA_DOCS_URL, TENSORBOARD_URL),
)
_LEDGER = (LEDGER_URL, RETENTION_DAYS)
_SCHEDULES = ("RECOMMENDER_INGESTION_CRON", "RECOMMENDER_RETRAINING_CRON")

Program = Literal["postgres", "api", "ui", "daemon", "run", "docs", "tensorboard"]
GIVEN: Mapping[Program, tuple[str, ...]] = {
    "postgres": (VARIABLE,),
    "api": (VARIABLE, LEDGER_URL),
    "ui": (*_DEFINITIONS, *_SCHEDULES),
    "daemon": (*_DEFINITIONS, *_SCHEDULES, *ALERTS, SHOP, *_LEDGER),
    "run": (*_DEFINITIONS, SHOP, *_LEDGER),
    "docs": (),
    "tensorboard": (),
}
"""Names, or patterns of names."""


def max_run_seconds(environ: Mapping[str, str]) -> int:
    """How long a run may take, by RECOMMENDER_MAX_RUN_HOURS.

    Raises:
        SettingError: it is no positive number.
    """
    text = environ.get(MAX_RUN_HOURS) or str(DEFAULT_RUN_HOURS)
    try:
        seconds = round(float(text) * 3600)
    except (ValueError, OverflowError):
        seconds = 0
    if seconds < 1:
        raise SettingError(
            f"{MAX_RUN_HOURS} is {text!r}; give a number of hours, such as {DEFAULT_RUN_HOURS:.0f}"
        )
    return seconds


def withheld(program: Program, environ: Mapping[str, str]) -> list[str]:
    """The variables of ours in an environment that a program has no use for.

    Raises:
        SettingError: the source that the environment names cannot be read.
    """
    names = {name for name in environ if name.startswith("RECOMMENDER_")}
    needed = {name for name in names if any(fnmatch(name, pattern) for pattern in GIVEN[program])}
    shop = read_source(Path(environ[SOURCE])).database_url_env if SOURCE in environ else None
    if shop and shop in environ and SHOP not in GIVEN[program]:
        names.add(shop)
    return sorted(names - needed)


def given(program: Program, environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without what a program has no use for.

    Raises:
        SettingError: the source that the environment names cannot be read.
    """
    without = withheld(program, environ)
    return {name: value for name, value in environ.items() if name not in without}


def keep_from_children(environ: Mapping[str, str]) -> None:
    """Hand what alerts are sent with to no process that this one starts; `os.environ` itself keeps it."""
    for name in environ:
        if any(fnmatch(name, pattern) for pattern in ALERTS):
            os.unsetenv(name)
