"""The gate's decision on one bundle. It is about a hash, so it cannot be lent to another model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from expectations.errors import RejectedError
from expectations.storage.atomic import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One rule of the gate: the measured value against its bound."""

    rule: str
    value: float | None
    bound: float | None
    passed: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class GateDecision:
    """The gate's decision on the bundle with that hash.

    Attributes:
        bundle: the hash.
        approved: whether it may serve.
        created_at: ISO 8601, UTC.
        rules: what each rule came to.
        needs_person: what a person should do where the rules alone cannot decide, and None where they can.
    """

    bundle: str
    approved: bool
    created_at: str
    rules: Sequence[RuleResult]
    needs_person: str | None = None

    @property
    def refusal(self) -> str:
        """Why the bundle may not serve, in a sentence: the rules that failed, or what a person should do; or empty."""
        if self.needs_person:
            return f"the gate leaves bundle {self.bundle[:12]} to a person: {self.needs_person}"
        if self.approved:
            return ""
        failed = "; ".join(f"{rule.rule}: {rule.reason}" for rule in self.rules if not rule.passed)
        return f"the gate rejected bundle {self.bundle[:12]}: {failed}"


def write_gate_decision(folder: Path, decision: GateDecision) -> Path:
    """Write the decision as `<bundle hash>.json` and return its path."""
    path = folder / f"{decision.bundle}.json"
    write_json(path, asdict(decision))
    return path


def read_gate_decision(folder: Path, bundle: str) -> GateDecision:
    """The decision on the bundle with that hash.

    Raises:
        RejectedError: there is no decision on that very bundle.
    """
    path = folder / f"{bundle}.json"
    if not path.exists():
        raise RejectedError(
            f"bundle {bundle[:12]} has no gate decision in {folder}: it was never evaluated, or altered since; "
            "run the evaluation of this bundle"
        )
    values = read_json(path)
    values["rules"] = tuple(RuleResult(**rule) for rule in values["rules"])
    decision = GateDecision(**values)
    if decision.bundle != bundle:
        raise RejectedError(
            f"{path} is about bundle {decision.bundle[:12]}, not {bundle[:12]}; evaluate it again"
        )
    return decision


def require_approval(folder: Path, bundle: str) -> GateDecision:
    """The decision, if it approves this very bundle.

    Raises:
        RejectedError: no decision, or a refusal, with its reason.
    """
    decision = read_gate_decision(folder, bundle)
    if decision.refusal:
        raise RejectedError(decision.refusal)
    return decision
