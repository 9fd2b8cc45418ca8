"""Ingest a shop's data: `python -m features.sources --source path/to/source.toml --home .recommender`."""

import argparse
import os
import sys
from pathlib import Path

from expectations.contracts.source import read_source
from expectations.errors import RecommenderError
from expectations.storage.erasures import read_erased
from expectations.storage.masking import KEY_FILE, read_mask
from expectations.storage.memory import memory_limit, memory_size
from features.sources import COMPLETE_JOURNEY
from features.sources.landing import LandedTable, ingest


def main(arguments: list[str] | None = None) -> int:
    """Ingest what the command line names; print one line for each table.

    Returns:
        0, or 1 after a plain message for an error of ours.
    """
    parser = argparse.ArgumentParser(
        prog="python -m features.sources",
        description="Land a shop's tables as partitioned Parquet; rows that cannot be cast go to quarantine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--source", type=Path, default=COMPLETE_JOURNEY, help="the shop's source.toml")
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("RECOMMENDER_HOME", ".recommender")),
        help="folder of everything that runs make; RECOMMENDER_HOME, if set",
    )
    parser.add_argument(
        "--memory-limit", help='what DuckDB may use, such as "4GB"; as RECOMMENDER_MEMORY if not given'
    )
    given = parser.parse_args(arguments)
    try:
        source = read_source(given.source)
        landed = ingest(
            source,
            given.source,
            tables_dir=given.home / "tables" / source.name,
            quarantine_dir=given.home / "quarantine" / source.name,
            memory_limit=memory_size(given.memory_limit, "--memory-limit")
            if given.memory_limit
            else memory_limit(os.environ),
            erased=lambda: read_erased(given.home / "erasures", read_mask(given.home / KEY_FILE)),
        )
    except RecommenderError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    _report(landed)
    return 0


def _report(landed: dict[str, LandedTable]) -> None:
    print(f"{'table':<12}{'rows':>12}{'rejected':>12}  state")
    for table in landed.values():
        state = "written" if table.written else "unchanged"
        print(f"{table.table:<12}{table.num_rows:>12,}{table.num_rejected:>12,}  {state}")


if __name__ == "__main__":
    os.umask(0o077)  # the tables hold customers' rows
    sys.exit(main())
