"""Shops that differ, each through the whole job by a `source.toml` of a few lines, beside plain methods.

A shop whose data are absent is skipped, one whose job fails is told with its reason; the others go on. Set
RECOMMENDER_POSTGRES_PORT where another recommender runs on this machine.
"""

import argparse
import sys
from pathlib import Path

from expectations.errors import RecommenderError
from tests.benchmarks.harness import Facts, command_line, run, shared_data, tell
from tests.benchmarks.shops.bench import Bench
from tests.benchmarks.shops.catalogue import SHOPS
from tests.benchmarks.shops.page import page
from tests.benchmarks.shops.shop import Shop


def measure(options: argparse.Namespace) -> Facts:
    """Every shop that was asked for."""
    bench = Bench(
        data=options.data,
        work=options.work / ("quick" if options.quick else "whole"),
        quick=options.quick,
        seeds=tuple(options.seeds),
    )
    return {"seeds": options.seeds, "shops": {name: _measured(bench, SHOPS[name]) for name in options.only}}


def _measured(bench: Bench, shop: Shop) -> Facts:
    skipped = shop.missing(bench.data)
    if skipped:
        tell(f"{shop.name}: skipped, {skipped}")
        return {"about": shop.about, "skipped": skipped}
    tell(f"{shop.name} …")
    try:
        return {"about": shop.about, **bench.shop(shop)}
    except RecommenderError as error:
        tell(f"{shop.name}: {error}")
        return {"about": shop.about, "failed": str(error)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = command_line("shops", __doc__)
    found.add_argument("--data", type=Path, default=shared_data(""), help="folder of the public data sets")
    found.add_argument(
        "--only", nargs="+", choices=SHOPS, default=list(SHOPS), metavar="SHOP", help=", ".join(SHOPS)
    )
    found.add_argument("--seeds", type=int, nargs="+", default=[7, 8], help="of the fits (default: 7 8)")
    found.add_argument(
        "--quick", action="store_true", help="small shops and short fits, written to the work folder"
    )
    return found


if __name__ == "__main__":
    sys.exit(run("shops", parser(), measure, page))
