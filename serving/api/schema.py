"""The requests and replies of POST /recommend and POST /decide. The OpenAPI page is made from these descriptions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from features.online.reader import DecisionRequest
from serving.ranking.ranker import RankedCandidate

MAX_ITEMS = 100
FIRST_YEAR, LAST_YEAR = 1971, 2200

Scenario = Literal["campaign", "product", "content", "ad", "search", "customer_service"]
QueryText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]


def _identifier(value: Any) -> Any:
    """An id as text: many clients send whole numbers, and some a blank beside it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return value
    if "\0" in value:
        raise ValueError("it has the character NUL, which no id has")
    return value.strip()


Name = Annotated[str, BeforeValidator(_identifier), StringConstraints(min_length=1, max_length=200)]


def _iso_8601(value: Any) -> Any:
    """Text only: a bare number would be read as seconds since 1970."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or value.strip().replace(".", "", 1).isdigit():
        raise ValueError("write the time as ISO 8601, such as 2017-12-01T09:30:00Z")
    return value


def _in_range(as_of: datetime | None) -> datetime | None:
    if as_of is not None and not FIRST_YEAR <= as_of.year < LAST_YEAR:
        raise ValueError(f"the year is {as_of.year}; give a time from {FIRST_YEAR} to {LAST_YEAR - 1}")
    return as_of


class Context(BaseModel):
    """Where and when. A source's extra columns of exposures may be given beside these, by their names."""

    model_config = ConfigDict(extra="allow")

    channel: str | None = Field(default=None, description="web, app, mail, store, …", examples=["mail"])
    place: str | None = Field(default=None, description="store or region", examples=["store 367"])
    device: str | None = Field(default=None, description="phone, desktop, till, …", examples=["phone"])
    occasion: str | None = Field(
        default=None, description="festival, season or situation", examples=["christmas"]
    )
    time: Annotated[datetime | None, BeforeValidator(_iso_8601), AfterValidator(_in_range)] = Field(
        default=None,
        description="the time to decide for, ISO 8601; without a zone it is UTC. Left out: now, or the "
        "last time of the data if the source's clock says so",
        examples=["2017-12-01T09:30:00Z"],
    )


class RecommendRequest(BaseModel):
    """Which items to show this shopper, here and now?"""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"user_id": "1", "scenario": "campaign", "context": {"channel": "mail"}, "k": 3}
        },
    )

    user_id: Name = Field(description="the shopper; one never seen before is served too", examples=["1"])
    scenario: Scenario = Field(default="campaign", description="where in the shop", examples=["campaign"])
    context: Context = Field(default_factory=Context, description="where and when")
    query: QueryText | None = Field(
        default=None, description="search query or utterance, if any", examples=["something for breakfast"]
    )
    candidates: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        default=None,
        description="item ids to choose from. Left out: all that may be shown in the scenario at that time",
    )
    k: int = Field(default=10, ge=1, le=MAX_ITEMS, description="how many items at most", examples=[3])

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """A null is what is left out."""
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}

    def decision_request(self, default_as_of: datetime) -> DecisionRequest:
        """The request as the features understand it; `default_as_of`, naive UTC, where it names no time."""
        as_of = self.context.time or default_as_of
        return DecisionRequest(
            user_id=self.user_id,
            scenario=self.scenario,
            as_of=as_of.astimezone(UTC).replace(tzinfo=None) if as_of.tzinfo else as_of,
            context=self.context.model_dump(exclude={"time"}, exclude_none=True),
            query=self.query or None,
            candidates=self.candidates,
        )


class _Reply(BaseModel):
    """What every list says of itself."""

    user_id: str = Field(description="as asked")
    scenario: str = Field(description="as asked")
    bundle: str = Field(description="hash of the model that decided")
    as_of: str = Field(description="the time that was decided for, ISO 8601, UTC")
    cold_start: bool = Field(description="nothing is known of this shopper: only the items were judged")


class RecommendReply(_Reply):
    """The list, best first, and which model made it."""

    decision_id: str = Field(description="of this list, for reporting what came of it")
    items: list[RankedCandidate] = Field(description="at most k items, best first")
    skipped: dict[str, str] = Field(description="candidates that may not be shown at that time, and why")


class DecideRequest(RecommendRequest):
    """What to show this shopper, here and now? It is logged as shown."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "request_id": "visit-81",
                "user_id": "1",
                "scenario": "campaign",
                "context": {"channel": "mail"},
                "k": 3,
            }
        },
    )

    request_id: Name | None = Field(
        default=None,
        description="of the caller: the same one for the same shopper gets the answer that was given before. Left "
        "out: one is made",
        examples=["visit-81"],
    )


@dataclass(frozen=True, kw_only=True)
class DecidedItem(RankedCandidate):
    """One item that is shown, and with what probability it was."""

    exposure_id: Annotated[
        str,
        Field(
            description="of this item in this list: POST /outcomes names it",
            examples=["0b6a4d0e-8f0c-5f0e-9f57-0c4f4c6c5a3e:1"],
        ),
    ]
    score: Annotated[
        float, Field(description="what showing it is worth: probability x value - cost", examples=[0.0942])
    ]
    propensity: Annotated[
        float,
        Field(description="probability of this item here, given those before it", examples=[0.31]),
    ]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Why an item is not shown."""

    rule: Annotated[
        str,
        Field(description='name of the rule or cap; "catalogue": unknown or not valid', examples=["of age"]),
    ]
    reason: Annotated[str, Field(description="in words", examples=["the rule does not hold"])]


class DecideReply(_Reply):
    """What is shown, and how it came about."""

    decision_id: str = Field(description="of this decision; exposures have it as their request_id")
    request_id: str = Field(description="as asked, or made")
    logged: bool = Field(description="it is in the ledger; false: nothing was kept and no cap was held")
    holdout: bool = Field(description="the random holdout chose")
    probability_of_list: float = Field(description="of the whole list: the product of its propensities")
    items: list[DecidedItem] = Field(description="at most k items, in the order of their slots")
    skipped: dict[str, Skipped] = Field(
        description="items that may not be shown to this shopper now, and why"
    )
