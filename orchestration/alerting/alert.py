"""What an alert says. Knows neither Dagster nor how alerts are delivered."""

from collections.abc import Sequence
from dataclasses import dataclass


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
    """

    title: str
    table: str = ""
    rule: str = ""
    num_rows: int | None = None
    sample: Sequence[str] = ()
    link: str = ""
    detail: str = ""

    def text(self) -> str:
        """The alert in plain text, one fact per line."""
        rows = None if self.num_rows is None else f"{self.num_rows:,}"
        facts = {
            "table": self.table,
            "rule": self.rule,
            "rows": rows,
            "sample": ", ".join(str(value) for value in self.sample),
            "detail": self.detail,
            "see": self.link,
        }
        return "\n".join([self.title, *(f"{name}: {value}" for name, value in facts.items() if value)])
