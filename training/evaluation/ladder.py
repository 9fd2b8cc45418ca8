"""The ladder: what each part of the model adds on the test rows, from the untuned language model to the whole.

    zero_shot   cosine similarities of the language model as it comes, nothing learned
    tabular     g alone: past outcomes and behaviour
    frozen      g and f, the language model as it comes
    finetuned   the model: f, g and the language model fine-tuned together

A step that is not better than a cheaper one by its paired interval gains nothing on this shop, and the cheaper one is
proposed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.special import expit
from torch import Tensor

from expectations.errors import BundleError
from training.data.collate import Collator
from training.evaluation.bootstrap import interval, paired_differences
from training.evaluation.metrics import LOWER_IS_BETTER
from training.inference.batch_scoring import logit_parts
from training.inference.bundle import FROZEN_MODEL, TREES_STATE
from training.inference.predictor import Predictor
from training.models.additive import PARTS
from training.models.boosted_trees import BoostedTrees

STEPS = ("zero_shot", "tabular", "frozen", "finetuned")
MIN_GAIN = 1e-4  # in the metric that decides: a smaller one is not seen in any table
PROPOSED = {
    "tabular": "g alone",
    "frozen": "g and the frozen language model",
    "finetuned": "the fine-tuned model",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a scorer came to: its metrics, and each of them in every draw, (R,)."""

    metrics: Mapping[str, Any]
    draws: Mapping[str, np.ndarray]

    def minus(self, other: "Measured") -> dict[str, dict[str, Any] | None]:
        """Difference of each metric and its interval over the same draws."""
        return paired_differences(self.metrics, other.metrics, self.draws, other.draws)

    def gain(self, other: "Measured", metric: str) -> dict[str, Any] | None:
        """What is gained in one metric, above 0 the better, and its interval; None where it is not measured."""
        pair = self.minus(other)[metric]
        if pair is None:
            return None
        difference, (low, high) = pair["difference"], pair["interval"]
        if metric in LOWER_IS_BETTER:
            difference, low, high = -difference, -high, -low
        return {"metric": metric, "difference": difference, "interval": [low, high]}


def step_probabilities(
    predictor: Predictor,
    bundle: Path,
    collator: Collator,
    tuned_TE: Tensor,
    pretrained_TE: Tensor,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Probabilities of "tabular", "frozen" and "finetuned", (N,) each; the last are those that are served.

    Leaves the weights before fine-tuning in the predictor, without the trees: these are the same in all steps, so they
    are asked once; and so is the rest where fine-tuning was given up.

    Args:
        predictor: of the bundle.
        bundle: the bundle's folder.
        collator: of the examples, by the bundle's transforms.
        tuned_TE: vectors of all texts by the bundle's language model.
        pretrained_TE: vectors of all texts before fine-tuning.
        rows: (N,) row numbers.

    Raises:
        BundleError: the bundle does not hold the weights before fine-tuning.
    """
    model, device = predictor.model, predictor.device
    parts_N6 = logit_parts(model, collator, tuned_TE, rows)
    scales = torch.cat([model.text_model.scales, model.tabular_scales]).detach().cpu().numpy()
    finetuned_N = float(model.slope) * (parts_N6 @ scales) + float(model.intercept)
    try:
        weights, epochs = load_file(bundle / FROZEN_MODEL), predictor.manifest.metrics["finetuning_epochs"]
        model.trees = BoostedTrees(model.trees.settings)
        model.load_state_dict({**weights, TREES_STATE: model.trees.get_extra_state()})
        chosen = {
            step: np.array(predictor.manifest.metrics["scales"][name])
            for step, name in (("tabular", "tabular"), ("frozen", "all"))
        }
    except (OSError, RuntimeError, KeyError, SafetensorError) as error:
        raise BundleError(
            f"{bundle} holds no model as it was before fine-tuning ({error}); train again"
        ) from error
    frozen_N6 = parts_N6
    if epochs or not torch.equal(tuned_TE.cpu(), pretrained_TE.cpu()):
        frozen_N6 = logit_parts(model.to(device), collator, pretrained_TE.to(device), rows)
        frozen_N6[:, PARTS.index("trees")] = parts_N6[:, PARTS.index("trees")]
    logits = {step: frozen_N6 @ scales[:-1] + scales[-1] for step, scales in chosen.items()}
    return {step: expit(logit_N) for step, logit_N in (*logits.items(), ("finetuned", finetuned_N))}


def ladder(steps: Mapping[str, Measured], metric: str) -> list[dict[str, Any]]:
    """Each step with its metrics, the interval of one of them, and what it gains in it over the step before.

    Args:
        steps: by STEPS.
        metric: the one that decides.
    """
    found: list[dict[str, Any]] = []
    before: Measured | None = None
    for name in STEPS:
        step = steps[name]
        found.append(
            {
                "step": name,
                "metrics": dict(step.metrics),
                "interval": interval(step.draws[metric]),
                "gain": step.gain(before, metric) if before else None,
            }
        )
        before = step
    return found


def proposal(steps: Mapping[str, Measured], metric: str) -> tuple[str, str]:
    """The cheapest step, from g alone up, that no dearer one beats beyond noise and MIN_GAIN; and why, a sentence."""
    names = STEPS[1:]
    for place, name in enumerate(names):
        gains = {dearer: steps[dearer].gain(steps[name], metric) for dearer in names[place + 1 :]}
        if not any(
            gain and gain["interval"][0] > 0 and gain["difference"] >= MIN_GAIN for gain in gains.values()
        ):
            break
    reasons = [f"{PROPOSED[dearer]} gains nothing over it ({_shown(gain)})" for dearer, gain in gains.items()]
    if not reasons:
        cheaper = names[names.index(name) - 1]
        reasons = [f"it gains over {PROPOSED[cheaper]} ({_shown(steps[name].gain(steps[cheaper], metric))})"]
    return name, f"{PROPOSED[name]}: {'; '.join(reasons)}"


def _shown(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return "not measured"
    low, high = gain["interval"]
    return f"{gain['metric']} better by {gain['difference']:+.4f}, 95 % {low:+.4f} to {high:+.4f}"
