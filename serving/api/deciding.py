"""From a request to a logged decision: POST /decide without HTTP.

candidates -> eligibility -> score = probability x value - cost -> caps -> exploration -> ledger -> reply

What is shown is chosen where caps are counted: in a transaction that holds the shopper's lock. The decision and its
exposures are committed before the reply is given. A request_id that this shopper's requests had before gets the reply
that was given then.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from expectations.contracts.decision import PER_ITEM, PER_SHOPPER
from expectations.contracts.source import Source
from expectations.errors import RequestError, ServiceError, SettingError, TransientError
from features.online.attributes import item_columns, request_values, variable_types
from features.online.reader import DecisionRequest, ScoringBatch
from serving.api.schema import DecidedItem, DecideRequest, Skipped
from serving.decision.caps import Capped, Caps
from serving.decision.eligibility import ITEM, Eligibility, Exclusion, compile_rules
from serving.decision.exploration import Limit, draw_list, seeded_generator
from serving.decision.value import item_costs, item_values, scores
from serving.ledger.deciding import DecidedBefore, DecisionTransaction, Window
from serving.ranking.ranker import Ranker, finite_logits
from serving.release.release import Release

if TYPE_CHECKING:
    from training.inference.batch_scoring import Scores

CATALOGUE = "catalogue"
"""In place of a rule's name: the item is unknown, or not valid at that time."""

_NAMESPACE = uuid.UUID("6f1f4c52-2d0b-4d3e-9a3c-0c7e6f0e2b1d")


class ConflictError(RequestError):
    """A request_id came again with another request."""


class DecisionLog(Protocol):
    """Where decisions are kept: `serving.api.recording.Recorder`."""

    def decided(self, decision_id: str) -> DecidedBefore | None:
        """What was decided before under an id."""
        ...

    def deciding(self, user_id: str) -> AbstractContextManager[DecisionTransaction]:
        """A transaction in which a shopper's request is decided."""
        ...


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What may be shown and what it is worth, before anything was chosen.

    Attributes:
        request: as the features understand it.
        batch: the n candidates that are eligible, in the order of their ids; None: there is none.
        places: (n,) of them in the catalogue.
        said: what the model says of them; None where there is none.
        scores: (n,) float64, what showing each is worth.
        known: whether anything is known of the shopper.
        skipped: item_id -> why, of those that are not.
    """

    request: DecisionRequest
    batch: ScoringBatch | None
    places: Sequence[int]
    said: "Scores | None"
    scores: np.ndarray
    known: bool
    skipped: Mapping[str, Exclusion]


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """A list that was drawn.

    Attributes:
        body: of the reply.
        distribution: what it was drawn from: policy, limits, and the propensities of those shown.
        candidates: [item_id, score] of what could be shown, in the order of the draw.
    """

    body: dict[str, Any]
    distribution: dict[str, Any]
    candidates: list[Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer, and how it came about.

    Attributes:
        body: of the reply.
        repeated: it was given before, to the same request.
    """

    body: Mapping[str, Any]
    repeated: bool = False


class Decider:
    """Decides by one release. Safe to share between threads.

    Args:
        release: what serves.
        ranker: its model.
        source: its declaration.

    Raises:
        SettingError: a rule or a cap of the declaration is wrong, or an item's value is no number.
    """

    def __init__(self, release: Release, ranker: Ranker, source: Source) -> None:
        self._release, self._ranker, self.settings = release, ranker, source.decision
        catalogue, types = ranker.features.catalogue, variable_types(ranker.features)
        self._item_ids = [str(item) for item in catalogue.items.index]
        rules = compile_rules(self.settings.rules, types)
        read = {name for rule in rules for name in rule.of_item}
        self._eligibility = Eligibility(rules, item_columns(catalogue, read))
        grouped = any(cap.per not in (PER_ITEM, PER_SHOPPER) for cap in self.settings.caps)
        one_valued = [name for name, kind in types.items() if name.startswith(ITEM) and kind != "strings"]
        attributes = item_columns(catalogue, one_valued if grouped else ())
        self._caps = Caps(self.settings.caps, self._item_ids, attributes)
        cost = [] if self.settings.cost is None else [f"{ITEM}{self.settings.cost}"]
        numbers = item_columns(catalogue, [f"{ITEM}value", *cost])
        try:
            self._values = item_values(np.array(numbers[f"{ITEM}value"], dtype=np.float64))
            costs = np.array(numbers[cost[0]], dtype=np.float64) if cost else np.zeros(len(self._item_ids))
            self._costs = item_costs(costs)
        except ValueError as error:
            raise SettingError(f"the items of {release.store}: {error}") from error

    def decide(self, request: DecideRequest, log: DecisionLog) -> Reply:
        """Decide what to show, and log it.

        Raises:
            RequestError: the request names something unknown, or what it decides cannot be kept.
            ConflictError: its request_id was another request's.
            ServiceError, TransientError: there is no ledger, and the declaration says not to answer without.
        """
        request_id = request.request_id or str(uuid.uuid4())
        decision_id = str(uuid.uuid5(_NAMESPACE, f"{len(request_id)} {request_id} {request.user_id}"))
        asked = request.model_dump(mode="json", exclude={"request_id"}, exclude_none=True)
        proposal = None
        try:
            before = log.decided(decision_id) if request.request_id else None
            if before:
                return _again(before, asked)
            proposal = self._propose(request)
            with log.deciding(request.user_id) as transaction:
                before = transaction.decided(decision_id) if request.request_id else None
                if before:  # by a request that was ahead by a moment
                    return _again(before, asked)
                return self._log(transaction, request, asked, proposal, request_id, decision_id)
        except (ServiceError, TransientError):
            if self.settings.without_ledger == "refuse":
                raise
            proposal = proposal or self._propose(request)
            return Reply(body=self._choose(request, proposal, None, request_id, decision_id).body)

    def _propose(self, request: DecideRequest) -> Proposal:
        decision_request = request.decision_request(self._release.default_as_of())
        self._ranker.check_context(decision_request.context)
        features = self._ranker.features
        retrieved = features.retrieve(decision_request)
        chosen = retrieved.chosen.sort_index()
        places = features.catalogue.items.index.get_indexer(chosen.index).tolist()
        skipped = {item: Exclusion(rule=CATALOGUE, reason=why) for item, why in retrieved.skipped.items()}
        said = request_values(decision_request, retrieved.user)
        excluded = self._eligibility.exclusions(places, said, decision_request.scenario)
        skipped |= {self._item_ids[place]: why for place, why in excluded.items()}
        left = [number for number, place in enumerate(places) if place not in excluded]
        batch = None
        if left:
            batch = features.batch(decision_request, replace(retrieved, chosen=chosen.iloc[left]))
        places = [places[number] for number in left]
        model = self._ranker.score(batch) if batch else None
        worth = np.zeros(0)
        if batch and model:
            finite_logits(batch, model)
            worth = scores(model.probability, self._values[places], self._costs[places])
        return Proposal(
            request=decision_request,
            batch=batch,
            places=places,
            said=model,
            scores=worth,
            known=retrieved.known,
            skipped=skipped,
        )

    def _log(
        self,
        transaction: DecisionTransaction,
        request: DecideRequest,
        asked: Mapping[str, Any],
        proposal: Proposal,
        request_id: str,
        decision_id: str,
    ) -> Reply:
        as_of = proposal.request.as_of
        windows = [Window(since=as_of - cap.window, scenarios=cap.scenarios) for cap in self._caps.caps]
        counts = transaction.exposure_counts(request.user_id, windows, as_of)
        capped = self._caps.apply(proposal.places, counts, proposal.request.scenario)
        chosen = self._choose(request, proposal, capped, request_id, decision_id)
        decision = {
            "decision_id": decision_id,
            "request_id": request_id,
            "user_id": request.user_id,
            "scenario": request.scenario,
            "event_timestamp": as_of,
            "bundle": self._release.bundle,
            "candidates": chosen.candidates,
            "propensities": chosen.distribution,
            "asked": asked,
            "reply": chosen.body,
        }
        exposures = [_exposure(item, proposal.request, decision_id) for item in chosen.body["items"]]
        transaction.append(decision, exposures)
        return Reply(body=chosen.body)

    def _choose(
        self,
        request: DecideRequest,
        proposal: Proposal,
        capped: Capped | None,
        request_id: str,
        decision_id: str,
    ) -> "_Chosen":
        """Draw a list; without `capped` it is not logged."""
        excluded = capped.excluded if capped else {}
        open_places = [number for number, place in enumerate(proposal.places) if place not in excluded]
        limits = [
            Limit(groups=limit.groups[open_places], room=limit.room)
            for limit in (capped.limits if capped else ())
        ]
        worth, policy = proposal.scores[open_places], self.settings.exploration
        generator = seeded_generator(request_id, request.user_id)
        drawn = draw_list(worth, request.k, policy, generator, limits)
        shown = np.array(open_places, dtype=np.int64)[drawn.items]
        items = []
        if proposal.batch and proposal.said:
            ranked = self._ranker.ranked(proposal.batch, proposal.said, shown)
            items = [
                DecidedItem(
                    **asdict(item),
                    exposure_id=f"{decision_id}:{item.position}",
                    score=float(proposal.scores[place]),
                    propensity=float(propensity),
                )
                for item, place, propensity in zip(ranked, shown.tolist(), drawn.propensities, strict=True)
            ]
        skipped = {
            **proposal.skipped,
            **{self._item_ids[place]: why for place, why in excluded.items()},
        }
        body = {
            "decision_id": decision_id,
            "request_id": request_id,
            "user_id": request.user_id,
            "scenario": request.scenario,
            "bundle": self._release.bundle,
            "as_of": proposal.request.as_of.replace(tzinfo=UTC).isoformat(),
            "cold_start": not proposal.known,
            "logged": capped is not None,
            "holdout": drawn.holdout,
            "probability_of_list": drawn.probability,
            "items": [asdict(item) for item in items],
            "skipped": {
                item: asdict(Skipped(rule=why.rule, reason=why.reason)) for item, why in skipped.items()
            },
        }
        item_ids = proposal.batch.item_ids if proposal.batch else []
        distribution = {
            **asdict(policy),
            "holdout": drawn.holdout,
            "probability_of_list": drawn.probability,
            "shown": [[item.item_id, item.propensity] for item in items],
            "limits": [{"groups": limit.groups.tolist(), "room": limit.room.tolist()} for limit in limits],
        }
        candidates = [[item_ids[number], float(proposal.scores[number])] for number in open_places]
        return _Chosen(body=body, distribution=distribution, candidates=candidates)


def _again(before: DecidedBefore, asked: Mapping[str, Any]) -> Reply:
    """The reply that was given before.

    Raises:
        ConflictError: it was given to another request.
    """
    if before.asked != asked:
        told = before.asked or {}
        differing = sorted(name for name in told.keys() | asked.keys() if told.get(name) != asked.get(name))
        raise ConflictError(
            f"request_id: it was used before with another {', '.join(differing)}; what was decided stays: send a new "
            "request_id for another request"
        )
    return Reply(body=before.reply, repeated=True)


def _exposure(item: Mapping[str, Any], request: DecisionRequest, decision_id: str) -> dict[str, Any]:
    """The row of exposures of an item that is shown."""
    return {
        **request.context,
        "exposure_id": item["exposure_id"],
        "user_id": request.user_id,
        "request_id": decision_id,  # the query group: requests of two shoppers may have the same request_id
        "item_id": item["item_id"],
        "scenario": request.scenario,
        "event_timestamp": request.as_of,
        "query_text": request.query,
        "position": item["position"],
        "propensity": item["propensity"],
    }
