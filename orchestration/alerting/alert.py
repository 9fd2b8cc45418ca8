"""What is told, and what it is told of: alerts, failures, the outcome of a run."""

import hashlib
import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum

FACT_CHARACTERS = 1_000
"""What an alert shows of one of its facts: channels refuse long messages, and the link comes last."""


class Severity(StrEnum):
    """How an alert is to be taken; a channel shows it by apprise's types `failure` and `info`."""

    ERROR = "error"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing that somebody should look at.

    Attributes:
        title: what happened, in one line.
        table: the table it is about; empty where it is about none.
        rule: the rule that was broken.
        num_rows: how many rows broke it; None where rows do not count.
        sample: a few of the offending values, in words.
        link: where to read on: a run's page or a folder.
        detail: anything else worth knowing.
        severity: whether something failed, or is well again.
    """

    title: str
    table: str = ""
    rule: str = ""
    num_rows: int | None = None
    sample: Sequence[str] = ()
    link: str = ""
    detail: str = ""
    severity: Severity = Severity.ERROR

    def text(self) -> str:
        """The alert in plain text, one fact per line; long facts are cut, what is no Unicode is replaced."""
        rows = None if self.num_rows is None else f"{self.num_rows:,}"
        facts = {
            "table": self.table,
            "rule": self.rule,
            "rows": rows,
            "sample": ", ".join(str(value) for value in self.sample),
            "detail": self.detail,
            "see": self.link,
        }
        lines = [self.title, *(f"{name}: {_cut(value)}" for name, value in facts.items() if value)]
        return "\n".join(lines).encode(errors="replace").decode()


def _cut(value: str) -> str:
    return value if len(value) <= FACT_CHARACTERS else value[: FACT_CHARACTERS - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One thing that failed in a run.

    Attributes:
        subject: what failed: a step, a check of an asset, the run itself.
        cause: what makes it the same failure the next time: the broken rule, the class of the error.
        alert: what is told of it.
    """

    subject: str
    cause: str
    alert: Alert

    def fingerprint(self, job: str) -> str:
        """The same for the same failure in any run of a job."""
        parts = (job, self.subject, self.alert.table, self.cause)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        run_id, job, link: its id, the job it was of, its page.
        failures: what failed in it.
        passed: subjects of which nothing but `failures` is wrong after this run.
        succeeded: whether the whole job did, so that nothing but `failures` is wrong with it.
    """

    run_id: str
    job: str
    link: str
    failures: Sequence[Failure] = ()
    passed: AbstractSet[str] = frozenset()
    succeeded: bool = False
