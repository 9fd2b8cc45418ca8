"""The gate: an evaluation against rules, a decision on one bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expectations.contracts.gate_decision import GateDecision, RuleResult
from expectations.errors import RejectedError
from training.config.settings import between, check, choice, read_settings
from training.evaluation.metrics import MIN_QUERY_GROUPS

METRICS = ("auc", "average_precision")
RANKING_METRICS = ("ndcg_at_10", "hit_rate_at_10")
TOLERANCE = 1e-6  # differences of metrics that float32 scores cannot tell from none
NEEDS_PERSON, REPLACE = "needs_person", "replace"
RIVALS = {  # and why there may be none
    "popularity": "neither events nor past outcomes tell the items apart",
    "logistic_regression": "it was not measured",
    "lightgbm": "LightGBM is not installed",
    "zero_shot": "it was not measured",
    "champion": "no champion",
}


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """The rules; what each means is written beside it in `recipes/gate.toml`.

    Raises:
        SettingError: a value is outside its range.
    """

    metric: str = choice(*METRICS)
    ranking_metric: str = choice(*RANKING_METRICS)
    margin: float = between(-1.0, 1.0)
    champion_margin: float = between(-1.0, 1.0)
    unscorable_champion: str = choice(NEEDS_PERSON, REPLACE)
    slice_margin: float = between(0.0, 1.0)
    min_slice_positives: int

    def __post_init__(self) -> None:
        check("gate rules", self)


def read_rules(path: Path | None) -> GateRules:
    """Read gate rules from TOML; what a file leaves out comes from the packaged rules.

    Raises:
        SettingError: no such file, not TOML, an unknown rule or a value of a wrong type or range.
    """
    return read_settings(GateRules, "gate.toml", path, what="gate rules")


def gate_decision(evaluation: Mapping[str, Any], rules: GateRules, bundle: str) -> GateDecision:
    """Decide on a bundle by its evaluation.

    Args:
        evaluation: what `training.evaluation.evaluate.evaluate` returned for this bundle.
        rules: the gate's rules.
        bundle: hash of the bundle.

    Raises:
        RejectedError: the evaluation is of another bundle.
    """
    if evaluation.get("bundle") != bundle:
        raise RejectedError(
            f"the evaluation is of bundle {str(evaluation.get('bundle'))[:12]}, not of {bundle[:12]}; "
            "evaluate this bundle"
        )
    results = (
        *_measurable(evaluation, rules),
        _against_constant(evaluation, rules),
        *(_against(rival, evaluation, rules) for rival in RIVALS),
        *_against_best_approved(evaluation, rules),
        *_slices(evaluation, rules),
    )
    approved = all(result.passed for result in results)
    return GateDecision(
        bundle=bundle,
        approved=approved,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        rules=results,
        needs_person=None if approved else _needs_person(evaluation, rules),
    )


def best_before(
    evaluation: Mapping[str, Any], rules: GateRules
) -> tuple[str | None, dict[str, float] | None]:
    """The bundle that was better than this approved one, the best so far, and this one's metrics minus that one's.

    Margins would add up otherwise: each model a little worse than the one before, and all of them approved.

    Args:
        evaluation: of the approved bundle.
        rules: the gate's rules.

    Returns:
        Hash and differences by metric; no hash where it could not be scored any more, neither where none was better.
    """
    paired = evaluation["paired"]
    best = _measured(paired.get("best_approved"), rules)
    pairs = best or _measured(paired.get("champion"), rules)
    earlier = {} if best else evaluation.get("champion_shortfall") or {}
    shortfall = {
        metric: pair["difference"] + min(earlier.get(metric, 0.0), 0.0) for metric, pair in pairs.items()
    }
    metric = rules.ranking_metric if rules.ranking_metric in shortfall else rules.metric
    if shortfall.get(metric, 0.0) >= 0:
        return None, None
    name = evaluation.get("best_approved_bundle") or (None if earlier else evaluation.get("champion_bundle"))
    return name, shortfall


def _measurable(evaluation: Mapping[str, Any], rules: GateRules) -> list[RuleResult]:
    """What cannot be measured: without the first metric nothing is approved, the ranking metric may be absent."""
    results = []
    if evaluation["model"][rules.metric] is None:
        reason = f"{rules.metric} cannot be measured: the test part has one outcome only; move test_from"
        results.append(RuleResult(rule=rules.metric, value=None, bound=None, passed=False, reason=reason))
    if evaluation["model"][rules.ranking_metric] is None:
        reason = (
            f"{rules.ranking_metric} is not measured and skipped: fewer than {MIN_QUERY_GROUPS} query groups of the "
            "test part have an order that can be right or wrong"
        )
        results.append(
            RuleResult(rule=rules.ranking_metric, value=None, bound=None, passed=True, reason=reason)
        )
    return results


def _against_constant(evaluation: Mapping[str, Any], rules: GateRules) -> RuleResult:
    ours, constant = evaluation["model"]["log_loss"], evaluation["constant"]["log_loss"]
    reason = f"log loss is {ours:.5f}, that of the mean outcome for every row {constant:.5f}"
    gain = constant - ours
    passed = gain > -rules.margin
    return RuleResult(rule="constant", value=gain, bound=-rules.margin, passed=passed, reason=reason)


def _against(rival: str, evaluation: Mapping[str, Any], rules: GateRules) -> RuleResult:
    """Whether the model is behind a rival beyond its interval, by either metric."""
    problem = evaluation.get(f"{rival}_problem")
    pairs = _measured(evaluation["paired"].get(rival), rules)
    if problem or not pairs:
        passed = not problem or rules.unscorable_champion == REPLACE
        reason = problem or (RIVALS[rival] if evaluation.get(rival) is None else "nothing can be compared")
        return RuleResult(rule=rival, value=None, bound=None, passed=passed, reason=reason)
    high = min(pair["interval"][1] for pair in pairs.values())
    reason = "; ".join(f"{metric} {_shown(pair)}" for metric, pair in pairs.items())
    passed = high >= -rules.margin - TOLERANCE
    return RuleResult(rule=rival, value=high, bound=-rules.margin, passed=passed, reason=reason)


def _against_best_approved(evaluation: Mapping[str, Any], rules: GateRules) -> list[RuleResult]:
    """Whether the model is worse than the best approved so far by more than the margin.

    That is the champion, or one before it. Where that cannot be scored any more, it is as far ahead of the champion as
    it was when it was scored last.
    """
    paired = evaluation["paired"]
    best = _measured(paired.get("best_approved"), rules)
    pairs = best or _measured(paired.get("champion"), rules)
    if not pairs:
        return []
    metric = rules.ranking_metric if rules.ranking_metric in pairs else rules.metric
    shortfall = 0.0 if best else (evaluation.get("champion_shortfall") or {}).get(metric, 0.0)
    difference = pairs[metric]["difference"] + min(shortfall, 0.0)
    known = f", the champion's {-shortfall:.4f} behind it included" if shortfall < 0 else ""
    reason = f"{metric} is {difference:+.4f} from that of the best model approved so far{known}"
    passed = difference >= -rules.champion_margin
    return [
        RuleResult(
            rule="best_approved",
            value=difference,
            bound=-rules.champion_margin,
            passed=passed,
            reason=reason,
        )
    ]


def _slices(evaluation: Mapping[str, Any], rules: GateRules) -> list[RuleResult]:
    results = []
    for name, metrics in evaluation["slices"].items():
        positives, gain = metrics["num_positive"], metrics["gain"]
        if gain is None or min(positives, metrics["num_exposures"] - positives) < rules.min_slice_positives:
            continue
        high = gain["interval"][1] if gain["interval"] else gain["difference"]
        reason = (
            f"AUC {metrics['auc']:.4f} for {name} ({positives} positives), that of {metrics['best_baseline']} there is "
            f"{metrics['best_baseline_auc']:.4f}; at the most {high:+.4f} apart"
        )
        results.append(
            RuleResult(
                rule=f"slice {name}",
                value=high,
                bound=-rules.slice_margin,
                passed=high >= -rules.slice_margin - TOLERANCE,
                reason=reason,
            )
        )
    return results


def _needs_person(evaluation: Mapping[str, Any], rules: GateRules) -> str | None:
    """What a person should do where the model that serves cannot be compared with."""
    problem = evaluation.get("champion_problem")
    if not problem or rules.unscorable_champion == REPLACE:
        return None
    return (
        f"{problem}. Look at the other rules: to let this model take its place, set unscorable_champion = "
        '"replace" in the gate rules for this one decision; to compare, bring back the columns that it needs, or its '
        "bundle, and evaluate again"
    )


def _measured(pairs: Mapping[str, Any] | None, rules: GateRules) -> dict[str, Any]:
    found = {metric: (pairs or {}).get(metric) for metric in (rules.metric, rules.ranking_metric)}
    return {metric: pair for metric, pair in found.items() if pair is not None}


def _shown(pair: Mapping[str, Any]) -> str:
    low, high = pair["interval"]
    return f"{pair['difference']:+.4f} (95 % {low:+.4f} to {high:+.4f})"
