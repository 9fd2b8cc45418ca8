"""The page of the Chinese benchmark."""

from typing import Any

from tests.benchmarks.machine import described

ELSEWHERE = 0.9357  # TF-IDF on another random fifth, by the data set's own sheet


def page(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows, encoder, recipe = found["rows"], found["encoder"], found["recipe"]
    reading, lessons = recipe["encoder"], recipe["pretraining"]
    table = [
        f"| {name} | {one['accuracy']:.4f} | {one['auc']:.4f} | {one['validation_auc']:.4f} "
        f"| {one['cpu_seconds']:,.0f} |"
        for name, one in found["figures"].items()
    ]
    differences = [
        f"{name}: {one['value']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
        for name, one in found["difference"].items()
    ]
    asked = found["request"]
    ranked = ", ".join(f"{one['probability']:.2f}{'' if one['praise'] else '*'}" for one in asked["items"])
    own = [f"| {text or '(empty)'} | {value:.2f} |" for text, value in asked["own_texts"].items()]
    return "\n".join(
        [
            "# Chinese: reviews through the whole pipeline",
            "",
            described(found["machine"]),
            "",
            "`make bench-chinese` (`../shared/data/online_shopping_10_cats`, or `SHARED_DATA`)",
            "",
            f"{sum(rows.values()):,} reviews, each an item shown once; the outcome says whether it praises. A random "
            f"fifth is the test part ({rows['test']:,}; no text that occurs twice); of the rest a tenth decides when "
            f"to stop ({rows['validation']:,}; TF-IDF then learns from it too). The language model is "
            f"made from nothing: layers: {encoder['layers']}, width {encoder['width']}, "
            f"{encoder['parameters'] / 1e6:.1f} M parameters, a vocabulary of {encoder['vocabulary']:,} pieces from "
            "the training part's texts. A piece's vector begins with the texts in which it occurs (no answers are "
            f"needed for that), all else is random. Texts are cut at {reading['max_tokens']} tokens; a step leaves out "
            f"{reading['token_dropout']:.0%} of them. Both fits begin with the same weights. Taught first: masked "
            f"tokens of the training part's texts, {lessons['language_epochs']} epochs.",
            "",
            "| scorer | accuracy | AUC | AUC, validation | CPU seconds |",
            "|---|---|---|---|---|",
            *table,
            "",
            f"Difference of accuracies, 95 % interval over test rows: {'; '.join(differences)}.",
            "",
            _verdict(found),
            "",
            "## Served",
            "",
            f"A request to the ranker with 20 reviews of the test part took {asked['milliseconds']:.0f} ms; "
            f"probabilities in its order, * where the review complains: {ranked}.",
            "",
            "Texts that no part holds:",
            "",
            "| text | probability of praise |",
            "|---|---|",
            *own,
            "",
        ]
    )


def _verdict(found: dict[str, Any]) -> str:
    """What the figures say, in words."""
    figures, losses = found["figures"], found["losses"]
    best = max(figures, key=lambda name: figures[name]["accuracy"])
    gain = found["difference"]["taught minus plain"]
    sure = "more than chance" if gain["low"] > 0 or gain["high"] < 0 else "which may be chance"
    masked, answers = losses["domain"], losses["words"][-1]
    ahead = found["difference"]["taught minus TF-IDF"]
    level = (
        "no difference can be told" if ahead["low"] <= 0 <= ahead["high"] else "the difference is no chance"
    )
    return (
        f"Best: {best} (the data set's sheet has {ELSEWHERE} for TF-IDF on another random fifth); between taught and "
        f"TF-IDF {level}. Masked tokens first change the accuracy by {100 * gain['value']:+.2f} points, {sure}; their "
        f"loss went from {masked[0]:.2f} to {masked[-1]:.2f} in {len(masked)} epochs. After the last epoch on answers "
        f"the loss is {answers['train_loss']:.2f} in training and {answers['log_loss']:.2f} on the validation part. "
        "Pretrained Chinese weights have read more than these texts: where they are at hand, name them in `[encoder]`."
    )
