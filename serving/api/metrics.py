"""What Prometheus sees of the served decisions, beside what BentoML counts of every request.

Made when a worker starts, not at import: in BentoML's workers `prometheus_client` must be imported after
the folder that the workers share is set.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
_LABELS = ("scenario", "cold_start")


class Metrics:
    """The service's own metrics."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.requests: Any = Counter("recommender_requests", "lists asked for", (*_LABELS, "status"))
        self.seconds: Any = Histogram(
            "recommender_seconds", "seconds to rank and explain one list", _LABELS, buckets=BUCKETS
        )
        self.candidates: Any = Counter("recommender_shown", "items put into lists", ("scenario",))
        self.bundle: Any = Gauge(
            "recommender_bundle", "1 for the bundle that serves", ("bundle",), multiprocess_mode="livemax"
        )
        self.recorded: Any = Counter(
            "recommender_recorded", "rows told to the ledger, by what became of them", ("table", "status")
        )
        self.decisions: Any = Counter(
            "recommender_decisions",
            "decisions, by how they came about",
            ("scenario", "holdout", "logged", "repeated"),
        )
        self.deployments: Any = Counter("recommender_deployments", "deployments loaded by this worker")
        self._last = ""

    def bundle_loaded(self, bundle: str) -> None:
        """Note that a bundle has been loaded and serves from now on."""
        if self._last and self._last != bundle:
            self.bundle.labels(bundle=self._last).set(0)
        self.bundle.labels(bundle=bundle).set(1)
        self.deployments.inc()
        self._last = bundle

    def request_served(self, scenario: str, *, cold_start: bool, seconds: float, shown: int) -> None:
        """Note a list that was served."""
        labels = {"scenario": scenario, "cold_start": str(cold_start).lower()}
        self.requests.labels(**labels, status="200").inc()
        self.seconds.labels(**labels).observe(seconds)
        self.candidates.labels(scenario=scenario).inc(shown)

    def decision_made(
        self, scenario: str, body: Mapping[str, Any], *, repeated: bool, seconds: float
    ) -> None:
        """Note a decision; `body` is its reply."""
        flags = {"holdout": body["holdout"], "logged": body["logged"], "repeated": repeated}
        labels = {name: str(flag).lower() for name, flag in flags.items()}
        self.decisions.labels(scenario=scenario, **labels).inc()
        self.request_served(
            scenario,
            cold_start=body["cold_start"],
            seconds=seconds,
            shown=0 if repeated else len(body["items"]),
        )

    def request_refused(self, scenario: str, status: int) -> None:
        """Note a request that got no list."""
        self.requests.labels(scenario=scenario, cold_start="", status=str(status)).inc()

    def rows_recorded(self, table: str, counts: Mapping[str, int]) -> None:
        """Note what became of rows that were told to the ledger."""
        for status, count in counts.items():
            self.recorded.labels(table=table, status=status).inc(count)


@cache
def metrics() -> Metrics:
    """The process's metrics: Prometheus allows each name once."""
    return Metrics()
