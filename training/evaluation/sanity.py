"""The sanity gate of a refit: the same recipe on all known rows, so that no row is left to measure it on.

It passes where it is still its evaluated parent, a little better informed: it agrees with the parent on the rows that
the parent was measured on, and the latest of them happen as often as it says. An order that these rows cannot tell from
chance need not be kept: two fits of noise have nothing in common.
"""

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from expectations.contracts.gate_decision import GateDecision, RuleResult
from expectations.errors import BundleError
from training.data.dataset import read_examples
from training.data.sampling import rows_of
from training.data.split import TEST
from training.evaluation.metrics import auc
from training.inference.predictor import Predictor

MIN_RANK_CORRELATION = 0.5
"""Two fits that differ by seed alone agree better than this; scrambled features do not."""

MAX_RELATIVE_DIFFERENCE = 1.0
"""Mean absolute difference of the two probabilities, as a multiple of the parent's mean probability."""

LEVEL = 1.96
"""Standard errors below a parent's AUC that are still above chance where its order is to be kept."""

MOST_ROWS = 1 << 16
"""Of more test rows than these, so many are looked at, evenly spaced."""

LATEST = 0.25
"""Fraction of these rows, the newest, that calibration is looked at on."""

MAX_RELATIVE_MISCALIBRATION, STANDARD_ERRORS = 0.25, 3.0
"""What expected and observed positives may differ by: a fraction of the observed, beside chance."""


def sanity_decision(refit: Path, parent: Path, examples: Path) -> GateDecision:
    """Decide whether a refit may serve in its approved parent's place.

    Args:
        refit: the bundle's folder.
        parent: folder of the bundle that was evaluated and approved.
        examples: the examples folder that both were fitted to.

    Raises:
        BundleError: one of them is incomplete or altered, or the refit is another bundle's.
    """
    data = read_examples(examples)
    final, before = Predictor.load(refit), Predictor.load(parent)
    if final.manifest.parent != before.hash:
        raise BundleError(
            f"bundle {final.hash[:12]} is no refit of {before.hash[:12]} but of {final.manifest.parent}; fit it again"
        )
    rows = rows_of(data.part, TEST)
    rows = rows[:: math.ceil(len(rows) / MOST_ROWS) or 1]
    mask = np.zeros(len(data.part), dtype=bool)
    mask[rows] = True
    latest = slice(-math.ceil(LATEST * len(rows)), None)  # rows lie in the order of time
    label, weight = (data.columns.at(name, rows).astype(np.float64) for name in ("label", "weight"))
    probability, parents = (
        predictor.score_examples(data, mask).probability.astype(np.float64) for predictor in (final, before)
    )
    rules = (
        *agreement(probability, parents, lowest_auc(label, parents, weight)),
        calibration(label[latest], weight[latest], probability[latest]),
    )
    return GateDecision(
        bundle=final.hash,
        approved=all(rule.passed for rule in rules),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        rules=rules,
    )


def lowest_auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    """Lower bound of the AUC of scores, (k,), by its standard error (Hanley & McNeil 1982); 0 without one."""
    area = auc(label, score, weight)
    if area is None:
        return 0.0
    positives, negatives = float(weight @ label), float(weight @ (1 - label))
    both_above, both_below = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area)
    variance += max(positives - 1, 0) * (both_above - area**2) + max(negatives - 1, 0) * (
        both_below - area**2
    )
    return area - LEVEL * math.sqrt(variance / (positives * negatives))


def agreement(
    probability: np.ndarray, parent: np.ndarray, parent_auc: float
) -> tuple[RuleResult, RuleResult]:
    """Of a refit's and its parent's probabilities, (k,) each; what is no number passes nothing.

    Args:
        probability: the refit's.
        parent: its parent's.
        parent_auc: lower bound of the parent's AUC.
    """
    difference, allowed = float(np.abs(probability - parent).mean()), MAX_RELATIVE_DIFFERENCE * parent.mean()
    apart = RuleResult(
        rule="refit differs little",
        value=_number(difference),
        bound=float(allowed),
        passed=bool(difference <= allowed),
        reason=f"on average {difference:.5f} apart from its parent's probabilities, at most {allowed:.5f} asked",
    )
    if not np.ptp(parent) or (np.isfinite(probability).all() and parent_auc <= 0.5):
        reason = (
            f"its parent's AUC may be {parent_auc:.3f} (95 %): it has no order that is worth keeping"
            if np.ptp(parent)
            else "its parent gives all rows one probability: there is no order to keep"
        )
        order = RuleResult(rule="refit keeps the order", value=None, bound=None, passed=True, reason=reason)
        return order, apart
    # the correlation with a constant is no number
    correlation = float(spearmanr(probability, parent).statistic) if np.ptp(probability) else 0.0
    order = RuleResult(
        rule="refit keeps the order",
        value=_number(correlation),
        bound=MIN_RANK_CORRELATION,
        passed=correlation >= MIN_RANK_CORRELATION,
        reason=f"rank correlation with its parent's {correlation:.3f}, at least {MIN_RANK_CORRELATION} asked",
    )
    return order, apart


def calibration(label: np.ndarray, weight: np.ndarray, probability: np.ndarray) -> RuleResult:
    """Of labels, weights and a refit's probabilities, (k,) each: as many positives as it expects, but for chance."""
    expected, observed = float(weight @ probability), float(weight @ label)
    chance = STANDARD_ERRORS * float(np.sqrt(weight @ (probability * (1 - probability))))
    allowed = MAX_RELATIVE_MISCALIBRATION * observed + chance
    return RuleResult(
        rule="refit is calibrated",
        value=_number(expected - observed),
        bound=_number(allowed),
        passed=bool(abs(expected - observed) <= allowed),
        reason=f"on the latest {len(label):,} test rows it expects {expected:.1f} positives, {observed:.1f} happened; "
        f"they may differ by {allowed:.1f}",
    )


def _number(value: float) -> float | None:
    """A number as JSON has it."""
    return value if np.isfinite(value) else None
