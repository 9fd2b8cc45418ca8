"""Shops that differ, each through the whole job by a `source.toml` of a few lines, beside plain methods.

A shop whose data are absent is skipped, one whose job fails is told with its reason; the others go on. Set
RECOMMENDER_POSTGRES_PORT where another recommender runs on this machine.
"""

import argparse
import sys
from pathlib import Path

from expectations.errors import RecommenderError
from tests.benchmarks.harness import Facts, run, shared_data, tell
from tests.benchmarks.shops.bench import Bench, summary
from tests.benchmarks.shops.catalogue import SHOPS
from tests.benchmarks.shops.shop import Shop


def measure(options: argparse.Namespace) -> Facts:
    """Every shop that was asked for."""
    bench = Bench(
        data=options.data,
        work=options.work / ("quick" if options.quick else "whole"),
        quick=options.quick,
        seeds=tuple(options.seeds),
    )
    shops = {name: _measured(bench, SHOPS[name]) for name in options.only}
    return {"seeds": options.seeds, "shops": shops, **summary(shops)}


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


if __name__ == "__main__":
    more = {
        "--data": {"type": Path, "default": shared_data(""), "help": "folder of the public data sets"},
        "--only": {
            "nargs": "+",
            "choices": SHOPS,
            "default": list(SHOPS),
            "metavar": "SHOP",
            "help": ", ".join(SHOPS),
        },
        "--seeds": {"type": int, "nargs": "+", "default": [7, 8], "help": "of the fits (default: 7 8)"},
        "--quick": {
            "action": "store_true",
            "help": "small shops and short fits, written to the work folder",
        },
    }
    sys.exit(run("shops", measure, __doc__, more=more))
