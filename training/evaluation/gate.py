"""The gate: an evaluation against rules, a decision on one bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expectations.contracts.gate_decision import GateDecision, RuleResult
from expectations.errors import RejectedError
from training.config.settings import between, check, choice, read_settings

METRICS = ("auc", "average_precision", "ndcg_at_10", "hit_rate_at_10")


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """The rules; what each means is written beside it in `recipes/gate.toml`.

    Raises:
        SettingError: a value is outside its range.
    """

    champion_metric: str = choice(*METRICS)
    champion_margin: float = between(-1.0, 1.0)
    popularity_metric: str = choice(*METRICS)
    popularity_margin: float = between(-1.0, 1.0)
    max_relative_calibration_error: float = between(0.0)
    min_slice_auc: float = between(0.0, 1.0)
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
    """Decide on a bundle by its evaluation. A metric that is missing fails its rule.

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
        _against_champion(evaluation, rules),
        _against_popularity(evaluation, rules),
        _calibration(evaluation, rules),
        *_slices(evaluation, rules),
    )
    return GateDecision(
        bundle=bundle,
        approved=all(result.passed for result in results),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        rules=results,
    )


def _against_champion(evaluation: Mapping[str, Any], rules: GateRules) -> RuleResult:
    metric, margin = rules.champion_metric, rules.champion_margin
    if evaluation.get("champion") is None:
        reason = evaluation.get("champion_problem") or "no champion"
        return RuleResult(rule="champion", value=None, bound=None, passed=True, reason=reason)
    pair = (evaluation["paired"].get("champion") or {}).get(metric)
    if pair is None:
        return _undefined("champion", -margin, f"{metric} is not defined for both models")
    difference, (low, high) = pair["difference"], pair["interval"]
    better, close = low > 0, difference >= -margin
    word = "better than" if better else "about as good as" if close else "worse than"
    reason = f"{metric} is {word} the champion's: {difference:+.4f} (95 % {low:+.4f} to {high:+.4f})"
    return RuleResult(rule="champion", value=difference, bound=-margin, passed=better or close, reason=reason)


def _against_popularity(evaluation: Mapping[str, Any], rules: GateRules) -> RuleResult:
    metric, margin = rules.popularity_metric, rules.popularity_margin
    interval = evaluation["intervals"].get(metric)
    popular = evaluation["popularity"][metric]
    if interval is None or popular is None:
        return _undefined("popularity", margin, f"{metric} is not defined on the test part")
    gain = interval[0] - popular
    reason = f"{metric} is at least {interval[0]:.4f} (95 %), popularity's is {popular:.4f}"
    return RuleResult(rule="popularity", value=gain, bound=margin, passed=gain >= margin, reason=reason)


def _calibration(evaluation: Mapping[str, Any], rules: GateRules) -> RuleResult:
    model = evaluation["model"]
    if not model["num_exposures"] or model["calibration_error"] is None:
        return _undefined("calibration_error", None, "there are no test rows")
    bound = rules.max_relative_calibration_error * model["num_positive"] / model["num_exposures"]
    error = model["calibration_error"]
    reason = f"calibration error {error:.5f}, at most {bound:.5f} allowed"
    return RuleResult(
        rule="calibration_error", value=error, bound=bound, passed=error <= bound, reason=reason
    )


def _slices(evaluation: Mapping[str, Any], rules: GateRules) -> list[RuleResult]:
    results = []
    for name, metrics in evaluation["slices"].items():
        if metrics["num_positive"] < rules.min_slice_positives or metrics["auc"] is None:
            continue
        value, bound = metrics["auc"], rules.min_slice_auc
        reason = f"AUC {value:.4f} for {name} ({metrics['num_positive']} positives), at least {bound} asked"
        results.append(
            RuleResult(rule=f"slice {name}", value=value, bound=bound, passed=value >= bound, reason=reason)
        )
    return results


def _undefined(rule: str, bound: float | None, reason: str) -> RuleResult:
    return RuleResult(rule=rule, value=None, bound=bound, passed=False, reason=reason)
