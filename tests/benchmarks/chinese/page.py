"""The page of the Chinese benchmark."""

from collections.abc import Iterable

from tests.benchmarks.harness import Facts, described, markdown, table

TF_IDF, SCRATCH, PRETRAINED = "TF-IDF", "from nothing", "from nothing, masked tokens first"
WITHOUT_PRETRAINING = "with masked tokens first minus without"
BEYOND_TF_IDF = "with masked tokens first minus TF-IDF"
ELSEWHERE = 0.9357  # TF-IDF on another random fifth, by the data set's own sheet


def page(facts: Facts) -> str:
    """The results as Markdown."""
    return markdown(facts, _head, _metrics, _served)


def _head(facts: Facts) -> Iterable[str]:
    rows, encoder, recipe = facts["rows"], facts["encoder"], facts["recipe"]
    yield "# Chinese: reviews through the whole pipeline"
    yield described(facts["machine"])
    yield "`make bench-chinese` (`../shared/data/online_shopping_10_cats`, or `SHARED_DATA`)"
    yield (
        f"{sum(rows.values()):,} reviews, each an item shown once; the outcome says whether it praises. A random "
        f"fifth is the test part ({rows['test']:,}; no text that occurs twice); of the rest a tenth decides when "
        f"to stop ({rows['validation']:,}; TF-IDF then learns from it too). The language model is "
        f"made from nothing: layers: {encoder['layers']}, width {encoder['width']}, "
        f"{encoder['parameters'] / 1e6:.1f} M parameters, a vocabulary of {encoder['vocabulary']:,} tokens from "
        "the training part's texts. A token's vector begins with the texts in which it occurs (no labels are "
        f"needed for that), all else is random. Texts are cut at {encoder['max_tokens']} tokens; a step leaves out "
        f"{recipe['encoder.token_dropout']:.0%} of them. Both fits begin with the same weights. Language pretraining: "
        f"masked tokens of the training part's texts, {recipe['pretraining.language_epochs']} epochs."
    )


def _metrics(facts: Facts) -> Iterable[str]:
    yield table(
        ("scorer", "accuracy", "AUC", "AUC, validation", "CPU seconds"),
        (
            (
                name,
                *(f"{one[key]:.4f}" for key in ("accuracy", "auc", "validation_auc")),
                f"{one['cpu_seconds']:,.0f}",
            )
            for name, one in facts["metrics"].items()
        ),
    )
    differences = (
        f"{name}: {one['value']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        for name, one in facts["difference"].items()
    )
    yield f"Difference of accuracies, 95 % interval over test rows: {'; '.join(differences)}."
    metrics, losses = facts["metrics"], facts["losses"]
    best = max(metrics, key=lambda name: metrics[name]["accuracy"])
    gain, ahead = (facts["difference"][name] for name in (WITHOUT_PRETRAINING, BEYOND_TF_IDF))
    sure = "more than chance" if gain["low"] > 0 or gain["high"] < 0 else "which may be chance"
    masked, last = losses["language_pretraining"], losses["finetuning"][-1]
    told = (
        "no difference can be told" if ahead["low"] <= 0 <= ahead["high"] else "the difference is no chance"
    )
    yield (
        f"Best: {best} (the data set's sheet has {ELSEWHERE} for TF-IDF on another random fifth); between masked "
        f"tokens first and TF-IDF {told}. Masked tokens first change the accuracy by {100 * gain['value']:+.2f} "
        f"points, {sure}; their loss went from {masked[0]:.2f} to {masked[-1]:.2f} in {len(masked)} epochs. After the "
        f"last epoch of fine-tuning the loss is {last['train_loss']:.2f} in training and {last['log_loss']:.2f} on the "
        "validation part. Pretrained Chinese weights have read more than these texts: where they are at hand, name "
        "them in the recipe's `[encoder]`."
    )


def _served(facts: Facts) -> Iterable[str]:
    asked = facts["request"]
    ranked = ", ".join(f"{one['probability']:.2f}{'' if one['praise'] else '*'}" for one in asked["items"])
    yield "## Served"
    yield (
        f"A request to the ranker with 20 reviews of the test part took {asked['milliseconds']:.0f} ms; "
        f"probabilities in its order, * where the review complains: {ranked}."
    )
    yield "Texts that no part holds:"
    own = ((text or "(empty)", f"{value:.2f}") for text, value in asked["own_texts"].items())
    yield table(("text", "probability of praise"), own)
