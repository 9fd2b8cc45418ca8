"""The page of the benchmark of shops, made of its results alone."""

from collections.abc import Iterable
from typing import Any

from tests.benchmarks.harness import QUICK_SAYS, Facts, described, markdown, table

OURS, KNOWN = "ours", "the best that can be known"
NAMES = {
    "auc": "AUC",
    "log_loss": "log loss",
    "ndcg_at_10": "NDCG@10",
    "pairwise_accuracy": "pairs in order",
}
LADDER = {
    "zero_shot": "the language model as it comes",
    "tabular": "g alone",
    "frozen": "g + f on the frozen language model",
    "finetuned": "g + f, fine-tuned",
}
SILENT = 0.05  # of g's standard deviation


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _overview, _standing, _shops)


def _head(facts: Facts) -> Iterable[str]:
    yield "# Shops that differ"
    yield f"`{facts['command']}`, {facts['seconds']:,} s, {described(facts['machine'])}."
    if facts["quick"]:
        yield QUICK_SAYS
    yield (
        "Each shop is a folder of files and a `source.toml` of a few lines ([sources](sources/)), and goes "
        "through the whole job (`python -m orchestration run --source …`: ingestion, validation, features, fit, "
        f"evaluation, gate) with the packaged recipe. Further seeds (in all {', '.join(map(str, facts['seeds']))})"
        " are fits from scratch to the same examples. On the same training and test rows, what anyone fits in an "
        "afternoon: LightGBM and CatBoost with their defaults (rate 0.05, stopped by the validation part, then "
        "fitted to it too) on the shop's raw columns, strings and ids as categories, hour and weekday; logistic "
        "regression on vectors of the untouched language model, and on TF-IDF of characters; each item's own past"
        " rate; the mean rate. Beyond 200,000 rows the trees take a weighted sample of the negatives."
    )
    yield (
        "A figure is the mean of the seeds, in brackets its 95 % interval over 200 draws of users (of requests where "
        "nobody is known). A difference is ours minus the other, over the same draws, turned so that **positive is "
        "better for us**, for log loss too. A row of many impressions counts as its clicks and its other impressions, "
        "a grade as its gain (2^grade - 1, scaled to 1)."
    )


def _measured(facts: Facts) -> dict[str, Facts]:
    return {name: shop for name, shop in facts["shops"].items() if "metrics" in shop}


def _overview(facts: Facts) -> Iterable[str]:
    yield "## All at once"
    rows = []
    for name, shop in _measured(facts).items():
        rival = best_plain(shop, "auc")
        rows.append(
            (
                f"[{name}](#{name})",
                f"{shop['test']['known_exposures']:,} / {shop['test']['exposures']:,}",
                _value(shop["metrics"][OURS], "auc"),
                f"{_value(shop['metrics'][rival], 'auc')} {rival}",
                _gain(shop, rival, "auc"),
                _gain(shop, best_plain(shop, "log_loss"), "log_loss"),
                f"{_mean(shop['deviation']['f']):.3g} / {_mean(shop['deviation']['g']):.3g}",
                "approved" if shop["gate"]["approved"] else "refused",
                f"{shop['seconds']:.0f}",
                f"{shop['peak_mib']:,}",
            )
        )
    yield table(
        (
            "shop",
            "rows known / test",
            "AUC, ours",
            "the best plain one",
            "difference",
            "difference in log loss to the best there",
            "deviation of f / g",
            "gate",
            "seconds of the job",
            "peak memory, MiB",
        ),
        rows,
    )
    for name, shop in facts["shops"].items():
        if "skipped" in shop:
            yield f"{name}: skipped, {shop['skipped']}."
        if "failed" in shop:
            yield f"{name}: **the job failed**. {shop['failed']}"


def _standing(facts: Facts) -> Iterable[str]:
    yield "## Where we are behind, and where ahead"
    behind, ahead, level = [], [], []
    for name, shop in _measured(facts).items():
        for metric, called in NAMES.items():
            if metric not in shop["metrics"][OURS]:
                continue
            rival = best_plain(shop, metric)
            gain = shop["gains"][rival][metric]
            words = f"{name}, {called}: {rival} ({_signed(gain)})"
            low, high = gain["interval"] or (0.0, 0.0)
            (behind if high < 0 else ahead if low > 0 else level).append(words)
    for words, found in (
        ("Behind the best plain method by the interval", behind),
        ("Ahead of the best plain method by the interval", ahead),
        ("Neither", level),
    ):
        yield f"{words}: " + ("; ".join(found) if found else "nowhere") + "."
    silent = [
        name
        for name, shop in _measured(facts).items()
        if _mean(shop["deviation"]["f"]) < SILENT * _mean(shop["deviation"]["g"])
    ]
    yield f"f is silent (its deviation below {SILENT:.0%} of g's): {', '.join(silent) or 'nowhere'}."


def _shops(facts: Facts) -> Iterable[str]:
    for name, shop in facts["shops"].items():
        yield f"## {name}"
        yield shop["about"]
        if "metrics" in shop:
            yield from _one(shop)


def _one(shop: Facts) -> Iterable[str]:
    test = shop["test"]
    exposures = f"{test['exposures']:,} test rows"
    if test["weight"] > test["exposures"]:
        exposures += f" of {test['weight']:,.0f} impressions"
    pairs = f", {test['pairs']:,} pairs" if test["pairs"] else ""
    yield f"{exposures}, {test['positives']:,.0f} positives{pairs}; {test['drawn_units']:,} users or requests drawn."
    yield _metrics(shop)
    yield from _ladder(shop)
    yield _run(shop)


def _metrics(shop: Facts) -> str:
    shown = [metric for metric in NAMES if metric in shop["metrics"][OURS]]
    order = sorted(shop["metrics"], key=lambda method: (method != OURS, -_of(shop["metrics"][method], "auc")))
    rows = []
    for method in order:
        cells = [f"**{method}**" if method == OURS else method]
        for metric in shown:
            cells.append(_stated(shop["metrics"][method].get(metric)))
            cells.append("" if method == OURS else _gain(shop, method, metric))
        rows.append(cells)
    head = [part for metric in shown for part in (NAMES[metric], "ours minus it")]
    return table(("scorer", *head), rows)


def _ladder(shop: Facts) -> Iterable[str]:
    evaluations = shop["evaluations"]
    steps = evaluations[0]["ladder"]
    if not steps:
        yield "The evaluation of this run tells no ladder."
        return
    shown = [
        metric for metric in ("auc", "log_loss", "ndcg_at_10") if steps[-1]["metrics"].get(metric) is not None
    ]
    yield table(
        ("step, seed by seed", *(NAMES[metric] for metric in shown), "gain over the step before"),
        (
            (
                LADDER.get(step["step"], step["step"]),
                *(
                    ", ".join(_number(one["ladder"][place]["metrics"].get(metric)) for one in evaluations)
                    for metric in shown
                ),
                ", ".join(_step_gain(one["ladder"][place]) for one in evaluations),
            )
            for place, step in enumerate(steps)
        ),
    )
    deviations = "; ".join(
        f"{part} {', '.join(f'{value:.3g}' for value in shop['deviation'][part])}" for part in ("f", "g")
    )
    said = "; ".join(dict.fromkeys(f"{one['proposal']}: {one['proposal_reason']}" for one in evaluations))
    yield f"Standard deviation on the test rows: {deviations}. Proposed: {said.rstrip('.')}."


def _run(shop: Facts) -> str:
    steps = sorted(shop["step_seconds"].items(), key=lambda step: -step[1])
    gate = shop["gate"]
    decision = "approved" if gate["approved"] else f"refused ({'; '.join(gate['refusals'])})"
    again = ", ".join(f"{seconds:.0f}" for seconds in shop["fit_seconds"])
    bad = {name: count for name, count in shop["quarantined"].items() if count}
    return (
        f"The whole job: {shop['seconds']:.0f} s, at most {shop['peak_mib']:,} MiB ("
        + ", ".join(f"{name} {seconds:.0f}" for name, seconds in steps if seconds >= 1)
        + f"){f'; fit and evaluation of the other seeds {again} s' if again else ''}. The gate: {decision}."
        + (
            f" Quarantined rows: {', '.join(f'{name} {count:,}' for name, count in bad.items())}."
            if bad
            else ""
        )
    )


def best_plain(shop: Facts, metric: str) -> str:
    """The plain method with the best value; the truth is none."""
    lower = metric == "log_loss"
    plain = [method for method in shop["gains"] if method != KNOWN and metric in shop["metrics"][method]]
    return max(plain, key=lambda method: (-1 if lower else 1) * _of(shop["metrics"][method], metric))


def _of(metrics: Facts, metric: str) -> float:
    return float(metrics[metric]["value"]) if metric in metrics else 0.0


def _value(metrics: Facts, metric: str) -> str:
    return _number(metrics[metric]["value"]) if metric in metrics else ""


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _stated(found: Any) -> str:
    if not found:
        return "not measured"
    low, high = found["interval"] or (found["value"], found["value"])
    return f"{found['value']:.4f} ({low:.4f} to {high:.4f})"


def _signed(gain: Facts) -> str:
    low, high = gain["interval"] or (gain["value"], gain["value"])
    return f"{gain['value']:+.4f}, {low:+.4f} to {high:+.4f}"


def _gain(shop: Facts, method: str, metric: str) -> str:
    found = shop["gains"][method].get(metric)
    return _signed(found) if found else ""


def _step_gain(step: Facts) -> str:
    gain = step.get("gain")
    if not gain:
        return "-"
    interval = gain.get("interval")
    return f"{gain['difference']:+.4f}" + (f" ({interval[0]:+.4f} to {interval[1]:+.4f})" if interval else "")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
