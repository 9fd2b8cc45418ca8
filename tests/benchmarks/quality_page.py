"""The page of `make bench-quality`, from its figures. What it says in words is computed from them too."""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.benchmarks.machine import described
from tests.benchmarks.quality_goals import ceilings_section, goals_section
from tests.benchmarks.quality_tables import LOWER_IS_BETTER, NAMES, WAYS, gap, interval, plain, spread, table

CAMPAIGN_TREES = "LightGBM on whole lists"


def page(facts: Mapping[str, Any]) -> str:
    """The whole page, Markdown."""
    parts = (
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
    return "\n".join(line for part in parts for line in (*part(facts), ""))


def _head(facts: Mapping[str, Any]) -> Iterable[str]:
    rows, answered = facts["examples"]["rows"], facts["examples"]["answered"]
    yield "# Quality on Complete Journey"
    yield ""
    if facts["quick"]:
        yield "**A quick run: it shows that every part runs; its figures say nothing.**"
        yield ""
    yield (
        f"`{facts['command']}`, {facts['seconds'] / 60:.0f} minutes since its last start (what an earlier start had "
        f"finished is kept). {described(facts['machine'])}."
    )
    yield ""
    yield (
        f"One row per coupon sent to a household. Learned from: {rows['train']:,} rows ({answered['train']} answered), "
        f"chosen by the next {rows['validation']:,} ({answered['validation']}), measured on {rows['test']:,} "
        f"({answered['test']}) from {facts['examples']['test_from'][:10]} on: campaigns that nobody has seen. "
        f"Seeds {', '.join(map(str, facts['seeds']))}; ± is the deviation between seeds; brackets hold 95 % of "
        "the draws when shoppers are drawn anew. Methods without randomness have one seed."
    )


def _coupon_level(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Coupon level"
    yield ""
    yield from table(
        ("method", *NAMES.values(), "seconds"),
        (
            (title, *(spread(facts["figures"][name][figure]) for figure in NAMES), _seconds(facts, name))
            for name, title in facts["titles"].items()
        ),
    )
    yield ""
    beside = (
        ""
        if facts["jobs"] == 1
        else f" Of ours {facts['jobs']} fits ran at a time, each with its share of the cores."
    )
    yield f"Seconds: wall time to train and score once; LightGBM's search and EASE's models are not in it.{beside}"
    yield ""
    yield from table(
        ("95 % intervals", *NAMES.values()),
        (
            (title, *(interval(facts["figures"][name][figure]["interval"]) for figure in NAMES))
            for name, title in facts["titles"].items()
        ),
    )


def _against(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Ours minus each"
    yield ""
    yield "An interval without 0 is set in bold. Log loss and calibration error: less is better."
    yield ""
    yield from table(
        ("against", *NAMES.values()),
        (
            (facts["titles"][name], *(gap(found[figure]) for figure in NAMES))
            for name, found in facts["paired"].items()
        ),
    )
    yield ""
    yield _losses(facts)


def _losses(facts: Mapping[str, Any]) -> str:
    """Where ours is behind, in a sentence."""
    behind = []
    for name, found in facts["paired"].items():
        for figure, one in found.items():
            sign = -1 if figure in LOWER_IS_BETTER else 1
            high = max(sign * end for end in one["interval"])
            if sign * one["difference"] < 0:
                sure = "" if high < 0 else " (may be chance)"
                behind.append(f"{NAMES[figure]} against {facts['titles'][name]}{sure}")
    return (
        f"Where ours loses: {'; '.join(behind)}." if behind else "Ours loses to none of them in any figure."
    )


def _campaign_level(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Campaign level"
    yield ""
    yield (
        "Did the household answer any coupon of the campaign? The coupons' probabilities put together in three "
        "ways; the third is a logistic regression on the logits of the first two, fitted to the validation part by "
        "a model that has not seen it. LightGBM on whole lists learns from one row a household and campaign instead: "
        "means, sums and greatest values of the coupons' features."
    )
    yield ""
    yield from table(
        ("method", *(f"{name}, {way}" for way in WAYS.values() for name in ("AUC", "AP"))),
        (
            (
                title,
                *(
                    spread(facts["campaign"][name][way][figure]) if way in facts["campaign"][name] else "-"
                    for way in WAYS
                    for figure in ("auc", "average_precision")
                ),
            )
            for name, title in {**facts["titles"], "campaign_trees": CAMPAIGN_TREES}.items()
        ),
    )


def _text_only(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## What the words know by themselves"
    yield ""
    yield (
        "First, every `user_item_*` feature is taken away: nothing counts any more what the shopper did with the "
        "coupon's products, product types or departments, or with coupons of their kind. What is left to g and to "
        "LightGBM: the shopper, the coupon (how popular its product types are with everybody among it), the context. Only the "
        "words can still say whether a coupon suits a shopper."
    )
    yield ""
    yield from _worded(facts, "uncrossed", "without cross counts")
    yield ""
    yield (
        "Then whatever is known of a coupon by the products that it covers: how many, how popular, at what price, how "
        "often their types were answered. So it is in a shop that has a campaign's words and no list of what it "
        "covers. The campaign's own row (its type, its days, its past outcomes) is left."
    )
    yield ""
    yield from _worded(facts, "told", "a coupon known by its words")


def _worded(facts: Mapping[str, Any], known: str, title: str) -> Iterable[str]:
    """Figures of the scorers that know so much, and how far ours is ahead."""
    titles = {name: facts["titles"][name] for name in ("trees", "past", "ours")}
    yield from table(
        (title, *NAMES.values()),
        (
            (of, *(spread(facts["figures"][f"{name}_{known}"][figure]) for figure in NAMES))
            for name, of in titles.items()
        ),
    )
    yield ""
    for name, found in facts["text_only"][known].items():
        one = found["auc"]
        yield (
            f"Ours minus {titles[name]}: {100 * one['difference']:+.1f} AUC points "
            f"[{100 * one['interval'][0]:+.1f}, {100 * one['interval'][1]:+.1f}]. "
        )


def _textbook(facts: Mapping[str, Any]) -> Iterable[str]:
    one = facts["textbook"]
    seconds, seen = sum(one["seconds"]) / len(one["seconds"]), one["rows_seen"]
    yield "## The textbook fine-tuning"
    yield ""
    yield (
        "The same language model as a sequence classifier, one text a row (the shopper's facts and most frequent "
        "purchases, the counts of past baskets, the channel, the coupon's words; 128 tokens), all layers learning, "
        f"batches of 16, AdamW at 2e-5. It came through {max(seen):,} of {one['rows']:,} drawn rows (all answered ones "
        f"before the test part, and others with the loss corrected for that) in {seconds:.0f} seconds: "
        f"{max(seen) / seconds:.1f} rows a second, {one['seeds']} seed(s). Reading all test rows would take it hours, "
        f"so all three are measured on the same drawn rows: {one['test_rows']:,}, all {one['test_positive']} answered "
        f"among them, each other one standing for many; NDCG@10 on {one['test_lists']} whole lists."
    )
    yield ""
    titles = {"textbook": "textbook fine-tuning", "trees": "LightGBM, tuned", "ours": "ours"}
    yield from table(
        ("method, on the drawn rows", *NAMES.values()),
        (
            (title, *(spread(one["figures"][name][figure]) for figure in NAMES))
            for name, title in titles.items()
        ),
    )
    yield ""
    gaps = (f"{title} {gap(one['paired'][figure])}" for figure, title in NAMES.items())
    yield f"Ours minus textbook: {', '.join(gaps)}."


def _slices(facts: Mapping[str, Any]) -> Iterable[str]:
    shown = ("past_baskets", "trees", "past", "ours")
    yield "## By slice"
    yield ""
    yield from table(
        ("slice", "rows", "answered", *(f"AUC {facts['titles'][name]}" for name in shown), *_ours_too(facts)),
        (
            (
                name,
                f"{found['num_rows']:,}",
                str(found["num_positive"]),
                *(plain(found["figures"], predictor, "auc") for predictor in shown),
                *(
                    plain(found["figures"], predictor, figure)
                    for figure in ("average_precision", "ndcg_at_10")
                    for predictor in ("trees", "ours")
                ),
            )
            for name, found in facts["slices"].items()
        ),
    )


def _ours_too(facts: Mapping[str, Any]) -> list[str]:
    return [
        f"{NAMES[figure]} {facts['titles'][predictor]}"
        for figure in ("average_precision", "ndcg_at_10")
        for predictor in ("trees", "ours")
    ]


def _settings(facts: Mapping[str, Any]) -> Iterable[str]:
    tuned = facts["tuned"]
    settings = ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in tuned["settings"].items()
    )
    trials = tuned["trials"]
    yield "## Settings"
    yield ""
    yield (
        f"LightGBM: the best of {len(trials)} trials by AP on the validation part (the first is the pipeline's own "
        f"baseline, {trials[0]['average_precision']:.4f}; the best {max(t['average_precision'] for t in trials):.4f}): "
        f"{settings}, {tuned['num_trees']} trees, columns left out: {tuned['without']}; then fitted anew to training "
        "and validation part. EASE: a model for each moment of an exposure, from histories before it; penalty and sum "
        "chosen on the validation part. Ours: the packaged recipe. Nothing was chosen on the test part."
    )


def _seconds(facts: Mapping[str, Any], name: str) -> str:
    return f"{facts['figures'][name]['seconds']:.0f}"
