"""A version of a source's Feast store: a folder that nobody writes to again, and that can be moved.

<version>/
├── feature_store.yaml   Feast's own settings: `feast -c <version> feature-views list`
├── definitions.py       what `feast apply` registers
├── registry.db          what is registered
├── online.db            the latest row of each entity (`features.store.row_store`)
└── *.parquet            the feature rows that it was filled from, linked

Each version is filled beside the one that serves, so that training and serving share nothing that is written to.
"""

import io
import logging
import re
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.storage.atomic import read_json, write_text
from expectations.storage.datasets import land
from expectations.storage.hashes import file_hash, fingerprint
from expectations.storage.links import link_folder
from features.store.client import open_store, without_advice

if TYPE_CHECKING:
    from feast import FeatureStore

DEFINITIONS = '''"""The Feast objects of this folder, for `feast apply`."""

from pathlib import Path

from features.store.definitions import feature_repo

globals().update({f"object_{n}": found for n, found in enumerate(feature_repo(Path(__file__).parent))})
'''

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_log = logging.getLogger(__name__)


def build_store(project: str, feature_rows: Path, dataset: Path) -> tuple[dict[str, Any], bool]:
    """Fill a store from a version of the feature rows, unless it is there.

    Args:
        project: Feast project, the source's name.
        feature_rows: folder of the version.
        dataset: where the store's versions lie.

    Returns:
        The pointer of the dataset: version, feature_rows, views, horizon; and whether anything was written.

    Raises:
        SchemaError: a file is missing.
    """
    code = [file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    version = fingerprint(project, feature_rows.name, code)
    return land(dataset, version, lambda folder: _fill(folder, project, feature_rows))


def _fill(folder: Path, project: str, feature_rows: Path) -> dict[str, Any]:
    from features.store.definitions import ITEM_VIEWS, USER_VIEWS, feature_repo

    link_folder(feature_rows, folder)
    write_text(folder / "feature_store.yaml", _settings(project))
    write_text(folder / "definitions.py", DEFINITIONS)
    horizon = read_json(folder / "facts.json")["horizon"]
    store = open_store(folder)
    with without_advice():
        store.apply(feature_repo(folder))
        _materialize(store, datetime.fromisoformat(horizon))
    for path in folder.iterdir():
        path.chmod(0o600)
    return {"feature_rows": feature_rows.name, "views": [*USER_VIEWS, *ITEM_VIEWS], "horizon": horizon}


def _settings(project: str) -> str:
    """`feature_store.yaml`: DuckDB's as-of joins offline, SQLite online, all paths from its folder."""
    import yaml

    from features.store import asof, row_store

    settings = {
        "project": project,
        "provider": "local",
        "registry": {"path": "registry.db", "cache_ttl_seconds": 0},  # 0: read once
        "offline_store": {"type": asof.TYPE},
        "online_store": {"type": row_store.TYPE, "path": "online.db"},
        "entity_key_serialization_version": 3,
        # the newest row of each entity, not all rows to take it from in pandas
        "materialization": {"pull_latest_features": True},
        "auth": {"type": "no_auth"},
    }
    return str(yaml.safe_dump(settings, sort_keys=False))


def _materialize(store: "FeatureStore", horizon: datetime) -> None:
    """Bring each entity's latest feature row up to the horizon into the online store."""
    end = horizon.replace(tzinfo=UTC) + timedelta(seconds=1)
    printed = io.StringIO()  # Feast prints each view's name in colours, on whatever console there is
    with redirect_stdout(printed):
        store.materialize(start_date=datetime(1969, 12, 31, tzinfo=UTC), end_date=end)
    for line in filter(None, printed.getvalue().splitlines()):
        _log.info(_COLOUR.sub("", line))
