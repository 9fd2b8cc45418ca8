"""The features of one request: the shopper from Feast, the candidates from memory, and the user–item features."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from expectations.contracts.examples import REFERENCE_POSITION
from expectations.contracts.shop_tables import COLD_START_USER
from expectations.contracts.source import Source
from expectations.errors import RequestError
from features.online.ageing import aged
from features.online.candidates import Catalogue
from features.online.user_item_arrays import UserItemArrays
from features.store.client import online, open_store, stored, stored_types
from features.views import feature_schema
from features.views.request_context import DAY_SECONDS, calendar_features, clock_features
from features.views.user_history import HISTORY_LENGTH


@dataclass(frozen=True, kw_only=True)
class DecisionRequest:
    """What a request says.

    Attributes:
        user_id: the shopper; "" is an anonymous reader.
        scenario: where in the shop.
        as_of: naive UTC.
        context: channel, place, device, occasion and the source's extra columns of exposures.
        query: the search query or utterance, if any.
        candidates: item ids to choose from; None: everything that may be shown in the scenario.
    """

    user_id: str
    scenario: str
    as_of: datetime
    context: Mapping[str, Any]
    query: str | None = None
    candidates: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ScoringBatch:
    """A shopper and k candidates with all their features: what the model scores.

    Attributes:
        item_ids: (k,) the candidates.
        texts: (k,) what the model reads of each.
        rows: (k, features) numeric columns float32, categorical columns str or None.
        query: query, exposure texts and user text as one, or None.
        topics, sessions, amounts, days: what the shopper did, newest first, at most 256 long.
        known: whether anything is known of the shopper.
        skipped: candidates that were asked for and may not be shown, with the reason.
        feedback_texts, feedback_counts, feedback_sentiments, feedback_days_ago: what the shopper said, newest first.
    """

    item_ids: Sequence[str]
    texts: Sequence[str]
    rows: pd.DataFrame
    query: str | None
    topics: Sequence[str]
    sessions: Sequence[float]
    amounts: Sequence[float]
    days: Sequence[float]
    known: bool
    skipped: Mapping[str, str]
    feedback_texts: Sequence[str] = ()
    feedback_counts: Sequence[float] = ()
    feedback_sentiments: Sequence[float] = ()
    feedback_days_ago: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What a request is about, before features of candidates are put together.

    Attributes:
        chosen: k rows of the catalogue: the candidates.
        skipped: candidates that were asked for and may not be shown, with the reason.
        user: the shopper's features at the request's time, by name.
        known: whether anything is known of the shopper.
    """

    chosen: pd.DataFrame
    skipped: Mapping[str, str]
    user: Mapping[str, Any]
    known: bool


class OnlineFeatures:
    """Reads the features of requests. Safe to share between threads.

    Attributes:
        catalogue: the items that may be shown.
        types: features of shoppers and items that are no lists -> number or string.
        context_extras: the source's extra columns of exposures, by name.
    """

    def __init__(self, folder: Path, source: Source, horizon: datetime) -> None:
        """Load the candidates of a store.

        Args:
            folder: a version of the source's Feast store.
            source: the declaration.
            horizon: naive UTC: the time that the stored features are of.

        Raises:
            SchemaError: the folder holds no store.
        """
        self._store = open_store(folder)
        self._stored = stored(self._store, feature_schema.USER_SERVICE)
        self._lock = threading.Lock()
        self._horizon, self._history_days = horizon, source.history_days
        services = (feature_schema.USER_SERVICE, feature_schema.CANDIDATE_SERVICE)
        self.types = {
            name: kind for service in services for name, kind in stored_types(self._store, service).items()
        }
        self.context_extras = {c.name: c for c in source.contracts()["exposures"].extras}
        self.catalogue = Catalogue.load(self._store, folder)
        self._user_texts = _user_texts(folder)
        self._cold_start_user = self._fetch(COLD_START_USER)
        self._user_item_arrays = UserItemArrays(folder)

    def scoring_batch(self, decision_request: DecisionRequest) -> ScoringBatch:
        """The features of a shopper and the candidates of a request.

        Raises:
            RequestError: an unknown scenario, context or candidate, or nothing that may be shown.
        """
        return self.batch(decision_request, self.retrieve(decision_request))

    def retrieve(self, decision_request: DecisionRequest) -> Retrieved:
        """The shopper and the candidates of a request.

        Raises:
            RequestError: as `scoring_batch`.
        """
        self._check_context(decision_request.context)
        chosen, skipped = self.catalogue.select(
            decision_request.scenario, decision_request.as_of, decision_request.candidates
        )
        user = self._fetch(decision_request.user_id)
        known = decision_request.user_id != COLD_START_USER and user["user_num_events"] is not None
        age = (decision_request.as_of - self._horizon).total_seconds() / DAY_SECONDS
        user = aged(user if known else self._cold_start_user, age, self._history_days)
        return Retrieved(chosen=chosen, skipped=skipped, user=user, known=known)

    def batch(self, decision_request: DecisionRequest, retrieved: Retrieved) -> ScoringBatch:
        """The features of a shopper and the candidates that were retrieved, at least one."""
        seconds = decision_request.as_of.replace(tzinfo=UTC).timestamp()
        user, chosen = retrieved.user, retrieved.chosen
        return ScoringBatch(
            item_ids=list(chosen.index),
            texts=chosen["text"].tolist(),
            rows=self._rows(decision_request, user, chosen, seconds),
            query=self._query(decision_request),
            topics=user["topics"][:HISTORY_LENGTH],
            sessions=user["topic_sessions"][:HISTORY_LENGTH],
            amounts=user["topic_amounts"][:HISTORY_LENGTH],
            days=user["topic_days"][:HISTORY_LENGTH],
            known=retrieved.known,
            skipped=retrieved.skipped,
            feedback_texts=user["feedback_texts"],
            feedback_counts=user["feedback_counts"],
            feedback_sentiments=user["feedback_sentiments"],
            feedback_days_ago=user["feedback_days_ago"],
        )

    def _rows(
        self, decision_request: DecisionRequest, user: Mapping[str, Any], chosen: pd.DataFrame, seconds: float
    ) -> pd.DataFrame:
        """One row per candidate, the columns of both sides and of the pair."""
        own = {n: value for n, value in user.items() if n.startswith("user_") and n != "user_id"}
        own |= {name: values[0] for name, values in clock_features([seconds]).items()}
        own["context_scenario"] = decision_request.scenario
        for name in (*feature_schema.CONTEXT_COLUMNS, *self.context_extras):
            own[f"context_{name}"] = decision_request.context.get(name)
        own[feature_schema.POSITION] = REFERENCE_POSITION
        calendar = calendar_features(
            [seconds] * len(chosen), chosen["item_valid_from"].tolist(), chosen["item_valid_until"].tolist()
        )
        columns = {name: chosen[name].to_numpy() for name in chosen.columns if name.startswith("item_")}
        columns |= {name: values.astype(np.float32) for name, values in calendar.items()}
        columns |= {name: _repeat(value, len(chosen)) for name, value in own.items()}
        columns |= self._user_item_arrays.features(user, list(chosen.index))
        return pd.DataFrame(columns, index=chosen.index)

    def _check_context(self, context: Mapping[str, Any]) -> None:
        known = (*feature_schema.CONTEXT_COLUMNS, *self.context_extras)
        unknown = sorted(set(context) - set(known))
        if unknown:
            raise RequestError(f"context has an unknown key {unknown[0]!r}; known: time, {', '.join(known)}")

    def _fetch(self, user_id: str) -> dict[str, Any]:
        with self._lock:
            found = online(self._store, self._stored, [{"user_id": user_id}])
        return {name: values[0] for name, values in found.items()}

    def _query(self, decision_request: DecisionRequest) -> str | None:
        texts = [decision_request.query]
        texts += [
            decision_request.context.get(n) for n, c in self.context_extras.items() if c.extra == "text"
        ]
        texts.append(self._user_texts.get(decision_request.user_id))
        return " ".join(text.strip() for text in texts if text and text.strip()) or None


def _user_texts(feature_rows: Path) -> dict[str, str]:
    table = pq.read_table(feature_rows / "user_texts.parquet").to_pydict()
    return {user: text for user, text in zip(table["user_id"], table["user_text"], strict=True) if text}


def _repeat(value: Any, count: int) -> np.ndarray:
    """A value of the user or the request, for each candidate; None is NaN among numbers."""
    if isinstance(value, str):
        return np.full(count, value, dtype=object)
    return np.full(count, np.nan if value is None else value, dtype=np.float32)
