"""A search set made from Complete Journey's product types and their words: queries of several styles, graded products.

A query is made from one product type, so a type is asked for once, and the queries of the test part are unseen, as are
their types. A candidate's grade: 3 of the type, 2 of its category, 1 of its department, 0 of neither; where the query
says the category alone: 3 of the category, 1 of its department.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from expectations.suites.rules import literal
from features.sources.complete_journey import connector
from features.sources.complete_journey.items import select
from tests.benchmarks.shops.shop import Shop, write_files

QUERIES, QUICK_QUERIES = 1200, 100
CANDIDATES = {3: 2, 2: 4, 1: 4, 0: 6}  # how many of each grade, of an exact query
ASKED = pd.Timestamp("2017-12-31")

Style = Callable[[np.random.Generator, "pd.Series[str]"], str]


def _typed_in_haste(rng: np.random.Generator, product: "pd.Series[str]") -> str:
    """The type, its longest word with two letters in the wrong order."""
    words = product["type"].split()
    longest = max(range(len(words)), key=lambda place: len(words[place]))
    word = words[longest]
    if len(word) > 3:
        place = int(rng.integers(1, len(word) - 2))
        words[longest] = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return " ".join(words)


def _keyword(_rng: np.random.Generator, product: "pd.Series[str]") -> str:
    """The longest word of the type beside the last of the category."""
    return f"{max(product['type'].split(), key=len)} {product['category'].split()[-1]}"


STYLES: Mapping[str, Style] = {
    "exact": lambda _, product: product["type"],
    "question": lambda _, product: f"where can I find {product['type']}?",
    "wish": lambda _, product: (
        f"I need something from your {product['category']}, best of all {product['type']}"
    ),
    "keyword": _keyword,
    "haste": _typed_in_haste,
    "broad": lambda _, product: product["category"],
}


def write(_data: Path, folder: Path, quick: bool) -> None:
    """Products, and the candidates of each query with their grades."""
    rng = np.random.default_rng(7)
    products = _products()
    of_type, of_category, of_department = (
        products.groupby(keys, sort=False).indices
        for keys in (["department", "category", "type"], ["department", "category"], "department")
    )
    types = list(of_type)
    chosen = rng.permutation(len(types))[: QUICK_QUERIES if quick else QUERIES]
    rows = []
    for number, place in enumerate(chosen):
        department, category, _ = key = types[place]
        style = list(STYLES)[number % len(STYLES)]
        query = STYLES[style](rng, products.iloc[of_type[key][0]])
        pools = {
            3: of_type[key],
            2: np.setdiff1d(of_category[department, category], of_type[key]),
            1: np.setdiff1d(of_department[department], of_category[department, category]),
            0: np.setdiff1d(np.arange(len(products)), of_department[department]),
        }
        for grade, pool in pools.items():
            for item in rng.choice(pool, size=min(CANDIDATES[grade], len(pool)), replace=False):
                said = {"broad": {2: 3}}.get(style, {}).get(grade, grade)
                rows.append((f"query {number}", query, style, products["item_id"].iloc[item], said))
    rated = pd.DataFrame(rows, columns=["query", "query_text", "style", "item_id", "grade"])
    rated = rated.assign(rated=rated["query"] + " " + rated["item_id"], event_timestamp=ASKED)
    known = products[products["item_id"].isin(rated["item_id"])]
    write_files(
        folder, "searches", {"products": known[["item_id", "text", "categories", "brand"]], "rated": rated}
    )


def _products() -> pd.DataFrame:
    """Two products of each type, with all three levels of the catalogue, worded as the connector words them."""
    folder = connector.data_folder()
    with duckdb.connect() as con:
        for name in connector.FILES["items"]:
            path = literal(str(folder / f"{name}.parquet"))
            con.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet({path})")  # noqa: S608 - quoted
        found = con.execute(
            f"SELECT item_id, text, categories, brand FROM ({select(con)}) "  # noqa: S608 - a constant
            "WHERE item_type = 'product' AND len(categories) = 3 ORDER BY item_id"
        ).df()
    levels = ["department", "category", "type"]
    found[levels] = found["categories"].tolist()
    found = found.sample(frac=1, random_state=7).groupby(levels, sort=True).head(CANDIDATES[3])
    return found[found.groupby(levels)["item_id"].transform("size") == CANDIDATES[3]].reset_index(drop=True)


SHOP = Shop(
    name="searches",
    about=(
        "Search: 1,200 queries in six styles (the words of a product type as they are, in a question, in a wish, a "
        "keyword, typed in haste, the category alone) made from Complete Journey's catalogue, 16 products each with "
        "grades 0 to 3 by the catalogue's tree. No user, no times; whole queries are drawn into the parts "
        '(`[split] by = "query"`), so all queries of the test part are unseen.'
    ),
    package=connector.PACKAGE,
    write=write,
)
