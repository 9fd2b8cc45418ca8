"""One shop measured: the whole job, more seeds of its fit, plain methods on the same rows, and their differences."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from expectations.contracts.examples import ROWS
from expectations.contracts.source import read_source
from expectations.storage.hashes import file_hash, fingerprint
from tests.benchmarks.harness import QUICK_RECIPE, ROOT, Facts, Store
from tests.benchmarks.shops import plain
from tests.benchmarks.shops.job import another_fit, whole_job, write_recipe
from tests.benchmarks.shops.measures import MeasuredRows, best, gains, mean_over_seeds, measured, stated
from tests.benchmarks.shops.plain import METHODS, SEEDED, PlainRows
from tests.benchmarks.shops.shop import BEST, DECLARED, Shop
from training.config.recipe import recipe_from
from training.data.dataset import Examples, read_examples
from training.data.split import TEST
from training.evaluation.baselines import pretrained_vectors
from training.inference.predictor import Predictor

OURS, KNOWN = "ours", "the best that can be known"
SILENT = 0.05  # of g's standard deviation
ROOMS = ("expectations", "features", "training", "orchestration", "tests/benchmarks/shops")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and where.

    Attributes:
        data: folder of public data sets.
        work: folder of shops, homes and finished parts.
        quick: whether shops are small and fits are short.
        seeds: of the fits.
    """

    data: Path
    work: Path
    quick: bool
    seeds: tuple[int, ...]

    def shop(self, shop: Shop) -> Facts:
        """All that the page says of a shop; parts that are finished are not measured again.

        Raises:
            RecommenderError: the shop cannot be made, or its job failed.
        """
        folder, home = self.work / "data" / shop.name, self.work / "homes" / shop.name
        key = fingerprint(code(), self.quick)
        store = Store(self.work / "parts")
        recipes = {seed: self._recipe(seed) for seed in self.seeds}
        first, *others = self.seeds

        def job() -> Facts:
            shutil.rmtree(home, ignore_errors=True)
            shop.write(self.data / (shop.data or ""), folder, self.quick)
            return whole_job(folder / DECLARED, home, recipes[first])

        def again(seed: int, examples: str) -> Facts:
            return another_fit(Path(examples), home / "seeds" / str(seed), recipes[seed])

        run = store.record(f"{shop.name}-job-{first}", key, job)
        fits = [run] + [
            store.record(f"{shop.name}-fit-{seed}", key, partial(again, seed, run["examples"]))
            for seed in others
        ]
        scored = store.arrays(
            f"{shop.name}-scores-{'-'.join(map(str, self.seeds))}",
            key,
            lambda: self._scores(shop, folder, home, [fit["bundle"] for fit in fits], Path(run["examples"])),
        )
        return {**_facts(run, fits), **compared(scored)}

    def _recipe(self, seed: int) -> Path:
        settings = {"seed": seed, **({**QUICK_RECIPE, "finetuning.epochs": 1} if self.quick else {})}
        return write_recipe(self.work / "recipes" / f"{seed}.toml", settings)

    def _scores(
        self, shop: Shop, folder: Path, home: Path, bundles: list[str], examples: Path
    ) -> dict[str, np.ndarray]:
        """Arrays of the test rows: labels, and "<method>|<seed>" for each scorer."""
        data = read_examples(examples)
        contracts = read_source(folder / DECLARED).contracts()
        tables = plain.checked_tables(home, data.schema.source, contracts)
        names = pq.read_table(examples / ROWS, columns=["exposure_id"]).column(0).to_pandas()
        columns = plain.raw_columns(tables, contracts).loc[names]
        predictors = [Predictor.load(Path(bundle)) for bundle in bundles]
        vectors = partial(frozen_vectors, Path(bundles[0]), predictors[0])
        rows = plain_rows(data, columns, weights(examples), vectors)
        found = {
            **_test_rows(shop, folder, names, rows, data),
            "num_known": np.array((rows.part != TEST).sum()),
        }
        for seed, predictor in zip(self.seeds, predictors, strict=True):
            scores = predictor.score_examples(data)
            found[f"{OURS}|{seed}"] = scores.probability
            found[f"f|{seed}"], found[f"g|{seed}"] = scores.text_logit, scores.tabular_logit
        for method in METHODS:
            for seed in self.seeds if method in SEEDED else self.seeds[:1]:
                probability = plain.scores(method, rows, seed=seed)
                if probability is not None:
                    found[f"{method}|{seed}"] = probability
        if (folder / BEST).exists():
            attainable = pd.read_parquet(folder / BEST).set_index("exposure_id")["probability"]
            found[f"{KNOWN}|0"] = attainable.loc[names[rows.part == TEST]].to_numpy()
        return found


def code() -> str:
    """Hash of all code that the whole job runs, and of this benchmark."""
    return fingerprint(
        *(
            file_hash(path)
            for room in ROOMS
            for path in sorted((ROOT / room).rglob("*"))
            if path.suffix in (".py", ".toml")
        )
    )


def weights(examples: Path) -> np.ndarray:
    """Weight of each row of an examples folder."""
    return pq.read_table(examples / ROWS, columns=["weight"]).column(0).to_numpy()


def plain_rows(
    data: Examples, columns: pd.DataFrame, weight: np.ndarray, vectors: Callable[[list[str]], np.ndarray]
) -> PlainRows:
    """The rows of an examples folder, in its order, as plain methods take them.

    Who ranks decides the position: methods learn it, and are asked for the first place, as the model is.
    """
    part = np.asarray(data.part)
    if "position" in columns:
        columns = columns.assign(position=columns["position"].where(part != TEST, 1.0))
    text, query = (data.columns[name].astype(np.int64) for name in ("text_id", "query_id"))
    used = np.unique(np.concatenate([text, query[query >= 0]]))
    return PlainRows(
        columns=columns,
        item=data.columns.of(slice(None))["item_id"].to_numpy(),
        text=np.searchsorted(used, text),
        query=np.where(query >= 0, np.searchsorted(used, query), -1),
        texts=[data.texts[place] for place in used],
        label=data.labels.astype(np.float64),
        weight=weight.astype(np.float64),
        part=part,
        vectors=vectors,
    )


def frozen_vectors(bundle: Path, predictor: Predictor, texts: list[str]) -> np.ndarray:
    """Vectors of texts by the language model as it was before a fit; most are kept in the fit's bundle."""
    recipe = recipe_from(dict(predictor.manifest.recipe), where="manifest.json")
    return pretrained_vectors(recipe, texts, bundle).numpy()


def _test_rows(
    shop: Shop, folder: Path, names: pd.Series, rows: PlainRows, data: Examples
) -> dict[str, np.ndarray]:
    chosen = rows.part == TEST
    users = data.columns.of(np.flatnonzero(chosen))["user_id"].to_numpy(str)
    group = np.asarray(data.columns["query_group_id"])[chosen]
    anonymous = np.char.str_len(users) == 0
    owner = np.where(anonymous, np.char.add("group ", group.astype(str)), users)
    found = {
        "label": rows.label[chosen],
        "weight": rows.weight[chosen],
        "group": group,
        "unit": np.unique(owner, return_inverse=True)[1],
    }
    if shop.pairs is not None:
        exposures = pd.read_parquet(folder / "exposures.parquet").set_index("exposure_id").loc[names[chosen]]
        found["winner"], found["loser"] = shop.pairs(exposures)
    return found


def compared(scored: dict[str, np.ndarray]) -> Facts:
    """Metrics of every scorer, and by how much ours is better; intervals over the same drawn users or requests."""
    pairs = (scored["winner"], scored["loser"]) if "winner" in scored else None
    rows = MeasuredRows(**{name: scored[name] for name in ("label", "weight", "group", "unit")}, pairs=pairs)
    by_method: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, values in scored.items():
        method, _, seed = name.partition("|")
        if seed and method not in ("f", "g"):
            by_method.setdefault(method, []).append(measured(rows, values))
    means = {method: mean_over_seeds(found) for method, found in by_method.items()}
    order = sorted(means, key=lambda method: (method != OURS, -float(means[method]["auc"][0])))
    plain_ones = [method for method in order if method not in (OURS, KNOWN)]
    return {
        "test": {
            "exposures": len(rows.label),
            "known_exposures": int(scored["num_known"]),
            "weight": float(rows.weight.sum()),
            "positives": float(rows.positive.sum()),
            "drawn_units": int(rows.unit.max()) + 1,
            "pairs": None if pairs is None else len(pairs[0]),
        },
        "metrics": {method: stated(means[method]) for method in order},
        "each_seed": {
            method: [{name: float(values[0]) for name, values in one.items()} for one in found]
            for method, found in by_method.items()
            if len(found) > 1
        },
        "gains": {method: gains(means[OURS], means[method]) for method in order if method != OURS},
        "best_plain": {
            metric: best(metric, {one: means[one] for one in plain_ones}) for metric in means[OURS]
        },
        "deviation": {
            part: [float(values.std()) for name, values in scored.items() if name.startswith(f"{part}|")]
            for part in ("f", "g")
        },
    }


def summary(shops: Mapping[str, Facts]) -> Facts:
    """Where ours is behind the best plain method by the interval, where ahead; and where f says next to nothing."""
    standings: dict[str, list[Facts]] = {"behind": [], "ahead": [], "level": []}
    done = {name: shop for name, shop in shops.items() if "metrics" in shop}
    for name, shop in done.items():
        for metric, rival in shop["best_plain"].items():
            gain = shop["gains"][rival][metric]
            low, high = gain["interval"] or (0.0, 0.0)
            standing = "behind" if high < 0 else "ahead" if low > 0 else "level"
            standings[standing].append({"shop": name, "metric": metric, "rival": rival, "gain": gain})
    silent = [
        name
        for name, shop in done.items()
        if np.mean(shop["deviation"]["f"]) < SILENT * np.mean(shop["deviation"]["g"])
    ]
    return {"standings": standings, "silent": silent}


def _facts(run: Facts, fits: Iterable[Facts]) -> Facts:
    fits = list(fits)
    names = ("exit_code", "seconds", "step_seconds", "peak_mib", "gate", "quarantined")
    return {
        **{name: run[name] for name in names},
        "fit_seconds": [fit["seconds"] for fit in fits[1:]],
        "evaluations": [fit["evaluation"] for fit in fits],
    }
