"""Frequency caps: what a shopper was shown often enough within a sliding window is not shown again now.

A window ends with the request and holds what was shown after its beginning: (now - window, now]. Where a cap has room
for some items of a group, or some items in all, but not for a whole list, the list gets a limit, which the draw keeps.

Shapes: N items of the catalogue, n candidates, C caps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expectations.contracts.decision import PER_ITEM, PER_SHOPPER, Cap
from expectations.errors import SettingError
from serving.decision.eligibility import ITEM, Exclusion
from serving.decision.exploration import Limit


@dataclass(frozen=True, kw_only=True)
class Capped:
    """What caps leave.

    Attributes:
        excluded: place -> why, of candidates of which nothing may be shown; of several caps, the first.
        limits: on a list of the n candidates; items that are excluded among them have no room.
    """

    excluded: Mapping[int, Exclusion]
    limits: Sequence[Limit]


class Caps:
    """The caps of a release over its catalogue. Safe to share between threads.

    Args:
        caps: as declared.
        item_ids: (N,) of the catalogue.
        attributes: variable -> (N,) values of items, such as "item.brand"; those that caps are per.

    Raises:
        SettingError: a cap is per an attribute that items do not have.
    """

    def __init__(
        self, caps: Sequence[Cap], item_ids: Sequence[str], attributes: Mapping[str, Sequence[Any]]
    ) -> None:
        self.caps = tuple(caps)
        self._place = {item: place for place, item in enumerate(item_ids)}
        self._groups = [self._group(cap, attributes) for cap in caps]

    def _group(self, cap: Cap, attributes: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """(N,) the group of each item, -1: of none."""
        num_items = len(self._place)
        if cap.per == PER_ITEM:
            return np.arange(num_items)
        if cap.per == PER_SHOPPER:
            return np.zeros(num_items, dtype=np.int64)
        values = attributes.get(f"{ITEM}{cap.per}")
        if values is None:
            known = sorted(name.removeprefix(ITEM) for name in attributes)
            raise SettingError(
                f"decision cap {cap.name!r} is per {cap.per!r}, which items do not have; use {PER_ITEM}, "
                f"{PER_SHOPPER} or one of {', '.join(known)}"
            )
        codes: dict[Any, int] = {}
        return np.array(
            [-1 if value is None else codes.setdefault(value, len(codes)) for value in values], dtype=np.int64
        )

    def apply(self, candidates: Sequence[int], shown: Mapping[str, Sequence[int]], scenario: str) -> Capped:
        """What may still be shown.

        Args:
            candidates: (n,) places in the catalogue.
            shown: item_id -> (C,) how often the shopper saw it within each cap's window; items that are no longer
                in the catalogue count towards the shopper, and towards no group.
            scenario: of the request; caps of others do not hold.
        """
        excluded: dict[int, Exclusion] = {}
        limits = []
        places = np.asarray(candidates, dtype=np.int64)
        for number, (cap, groups) in enumerate(zip(self.caps, self._groups, strict=True)):
            if cap.scenarios and scenario not in cap.scenarios:
                continue
            room = np.full(groups.max(initial=-1) + 1, cap.at_most)
            for item, counts in shown.items():
                place = 0 if cap.per == PER_SHOPPER and len(groups) else self._place.get(item)
                if place is not None and groups[place] >= 0:
                    room[groups[place]] -= counts[number]
            of_candidates = groups[places]
            full = (
                (of_candidates >= 0) & (room[of_candidates] <= 0)
                if len(room)
                else np.zeros(len(places), bool)
            )
            for place in places[full].tolist():
                excluded.setdefault(place, Exclusion(rule=cap.name, reason=_reason(cap)))
            if cap.per != PER_ITEM:  # of an item a list has one
                limits.append(Limit(groups=of_candidates, room=np.maximum(room, 0)))
        return Capped(excluded=excluded, limits=limits)


def _reason(cap: Cap) -> str:
    hours = cap.window.total_seconds() / 3600
    window = f"{hours / 24:g} days" if hours >= 24 else f"{hours:g} hours"
    what = {PER_ITEM: "it was", PER_SHOPPER: "items were"}.get(cap.per, f"items of its {cap.per} were")
    return f"{what} shown {cap.at_most} times within {window}"
