"""The page of `make bench-quality`, from its results. What it says in sentences is computed from them too."""

from collections.abc import Iterable, Sequence

from tests.benchmarks.harness import QUICK_SAYS, Facts, described, markdown, table
from tests.benchmarks.quality.goals import ceilings_section, goals_section
from tests.benchmarks.quality.titles import LOWER_IS_BETTER, NAMES, SLICED, TITLES, WAYS, gap, spread

CAMPAIGN_TREES = "LightGBM on whole query groups"


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(
        facts,
        _head,
        _coupon_level,
        goals_section,
        ceilings_section,
        _against,
        _campaign_level,
        _text_only,
        _textbook,
        _slices,
        _settings,
    )


def _head(facts: Facts) -> Iterable[str]:
    rows, positive = facts["examples"]["rows"], facts["examples"]["positive"]
    yield "# Quality on Complete Journey"
    if facts["quick"]:
        yield QUICK_SAYS
    yield (
        f"`{facts['command']}`, {facts['seconds'] / 60:.0f} minutes since its last start (what an earlier start had "
        f"finished is stored). {described(facts['machine'])}."
    )
    yield (
        f"One row per coupon sent to a household. Learned from: {rows['train']:,} rows ({positive['train']} "
        f"positives), chosen by the next {rows['validation']:,} ({positive['validation']}), measured on "
        f"{rows['test']:,} ({positive['test']}) from {facts['examples']['test_from'][:10]} on: campaigns that nobody "
        f"has seen. Seeds {', '.join(map(str, facts['seeds']))}; ± is the deviation between seeds; brackets hold 95 % "
        "of the draws when users are drawn anew. Methods without randomness have one seed."
    )


def _coupon_level(facts: Facts) -> Iterable[str]:
    yield "## Coupon level"
    yield table(
        ("method", *NAMES.values(), "seconds"),
        (
            (
                title,
                *(spread(facts["metrics"][name][metric]) for metric in NAMES),
                f"{facts['metrics'][name]['seconds']:.0f}",
            )
            for name, title in TITLES.items()
        ),
    )
    beside = (
        ""
        if facts["jobs"] == 1
        else f" Of ours {facts['jobs']} fits ran at a time, each with its share of the cores."
    )
    yield f"Seconds: wall time to train and score once; LightGBM's search and EASE's models are not in it.{beside}"
    yield table(
        ("95 % intervals", *NAMES.values()),
        (
            (title, *(_interval(facts["metrics"][name][metric]["interval"]) for metric in NAMES))
            for name, title in TITLES.items()
        ),
    )


def _against(facts: Facts) -> Iterable[str]:
    yield "## Ours minus each"
    yield "An interval without 0 is set in bold. Log loss and calibration error: less is better."
    yield table(
        ("against", *NAMES.values()),
        (
            (TITLES[name], *(gap(found[metric]) for metric in NAMES))
            for name, found in facts["paired"].items()
        ),
    )
    yield _losses(facts)


def _losses(facts: Facts) -> str:
    """Where ours is behind, in a sentence."""
    behind = []
    for name, found in facts["paired"].items():
        for metric, one in found.items():
            sign = -1 if metric in LOWER_IS_BETTER else 1
            high = max(sign * end for end in one["interval"])
            if sign * one["difference"] < 0:
                sure = "" if high < 0 else " (may be chance)"
                behind.append(f"{NAMES[metric]} against {TITLES[name]}{sure}")
    return (
        f"Where ours loses: {'; '.join(behind)}." if behind else "Ours loses to none of them in any metric."
    )


def _campaign_level(facts: Facts) -> Iterable[str]:
    yield "## Campaign level"
    yield (
        "Did the household redeem any coupon of the campaign? The coupons' probabilities put together in three "
        "ways; the third is a logistic regression on the logits of the first two, fitted to the validation part by "
        "a model that has not seen it. LightGBM on whole query groups learns from one row a household and campaign "
        "instead: means, sums and greatest values of the coupons' features."
    )
    yield table(
        ("method", *(f"{name}, {way}" for way in WAYS.values() for name in ("AUC", "AP"))),
        (
            (
                title,
                *(
                    spread(facts["campaign"][name][way][metric]) if way in facts["campaign"][name] else "-"
                    for way in WAYS
                    for metric in ("auc", "average_precision")
                ),
            )
            for name, title in {**TITLES, "campaign_trees": CAMPAIGN_TREES}.items()
        ),
    )


def _text_only(facts: Facts) -> Iterable[str]:
    yield "## What the text model knows by itself"
    yield (
        "First, every `user_item_*` feature is taken away: nothing counts any more what the user did with the "
        "coupon's products, product types or departments, or with coupons of their kind. What is left to g and to "
        "LightGBM: the user, the coupon (how popular its product types are with everybody among it), the context. "
        "Only the text model can still say whether a coupon suits a user."
    )
    yield from _without(facts, "no_user_item", "without user-item features")
    yield (
        "Then whatever is known of a coupon by the products that it covers: how many, how popular, at what price, how "
        "often their types were positives. So it is in a shop that has a campaign's text and no list of what it "
        "covers. The campaign's own row (its type, its days, its past outcomes) is left."
    )
    yield from _without(facts, "no_products", "a coupon known by its text")


def _without(facts: Facts, known: str, title: str) -> Iterable[str]:
    """Metrics of the scorers that know so much, and how far ours is ahead."""
    titles = {name: TITLES[name] for name in ("trees", "tabular", "ours")}
    yield table(
        (title, *NAMES.values()),
        (
            (of, *(spread(facts["metrics"][f"{name}_{known}"][metric]) for metric in NAMES))
            for name, of in titles.items()
        ),
    )
    gains = {titles[name]: found["auc"] for name, found in facts["text_only"][known].items()}
    yield " ".join(
        f"Ours minus {title}: {100 * one['difference']:+.1f} AUC points "
        f"[{100 * one['interval'][0]:+.1f}, {100 * one['interval'][1]:+.1f}]."
        for title, one in gains.items()
    )


def _textbook(facts: Facts) -> Iterable[str]:
    one = facts["textbook"]
    seconds, seen = sum(one["seconds"]) / len(one["seconds"]), one["rows_seen"]
    yield "## The textbook fine-tuning"
    yield (
        "The same language model as a sequence classifier, one text a row (the user's facts and most frequent "
        "purchases, the counts of past baskets, the channel, the coupon's text; 128 tokens), all layers learning, "
        f"batches of 16, AdamW at 2e-5. It came through {max(seen):,} of {one['rows']:,} drawn rows (all positives "
        f"before the test part, and negatives with the loss corrected for that) in {seconds:.0f} seconds: "
        f"{max(seen) / seconds:.1f} rows a second, {one['seeds']} seed(s). Reading all test rows would take it hours, "
        f"so all three are measured on the same drawn rows: {one['test_rows']:,}, all {one['test_positive']} "
        f"positives among them, each negative standing for many; NDCG@10 on {one['test_query_groups']} whole "
        "query groups."
    )
    titles = {"textbook": "textbook fine-tuning", "trees": "LightGBM, tuned", "ours": "ours"}
    yield table(
        ("method, on the drawn rows", *NAMES.values()),
        (
            (title, *(spread(one["metrics"][name][metric]) for metric in NAMES))
            for name, title in titles.items()
        ),
    )
    gaps = (f"{title} {gap(one['paired'][metric])}" for metric, title in NAMES.items())
    yield f"Ours minus textbook: {', '.join(gaps)}."


def _slices(facts: Facts) -> Iterable[str]:
    yield "## By slice"
    yield table(
        ("slice", "rows", "positives", *(f"AUC {TITLES[name]}" for name in SLICED), *_beside_trees()),
        (
            (
                name,
                f"{found['num_rows']:,}",
                str(found["num_positive"]),
                *(_plain(found["metrics"], predictor, "auc") for predictor in SLICED),
                *(
                    _plain(found["metrics"], predictor, metric)
                    for metric in ("average_precision", "ndcg_at_10")
                    for predictor in ("trees", "ours")
                ),
            )
            for name, found in facts["slices"].items()
        ),
    )


def _beside_trees() -> list[str]:
    return [
        f"{NAMES[metric]} {TITLES[predictor]}"
        for metric in ("average_precision", "ndcg_at_10")
        for predictor in ("trees", "ours")
    ]


def _settings(facts: Facts) -> Iterable[str]:
    tuned = facts["tuned"]
    settings = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in tuned["settings"].items()
    )
    trials = tuned["trials"]
    yield "## Settings"
    yield (
        f"LightGBM: the best of {len(trials)} trials by AP on the validation part (the first is the pipeline's own "
        f"baseline, {trials[0]['average_precision']:.4f}; the best {max(t['average_precision'] for t in trials):.4f}): "
        f"{settings}, {tuned['num_trees']} trees, columns left out: {tuned['without']}; then fitted anew to training "
        "and validation part. EASE: a model for each event timestamp of an exposure, from histories before it; "
        "penalty and sum chosen on the validation part. Ours: the packaged recipe. Nothing was chosen on the test part."
    )


def _interval(ends: Sequence[float]) -> str:
    """Both ends in brackets."""
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def _plain(metrics: Facts, predictor: str, metric: str) -> str:
    """A scorer's metric, or a dash where it has none."""
    return f"{metrics[predictor][metric]:.4f}" if predictor in metrics else "-"
