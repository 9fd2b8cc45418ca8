"""Which items may be shown to a shopper: a shop's rules, in CEL (https://cel.dev), over what is known of both.

A rule reads these variables and nothing else; it has no way to the process that evaluates it:

    item.…      attributes of the candidate: item_id, item_type, text, categories, brand, value, valid_from,
                valid_until, the extra columns of items, and its features (item.popularity, …)
    user.…      the extra columns of users and the shopper's features (user.num_sessions_30d, …)
    context.…   channel, place, device, occasion, scenario, query, and the extra columns of exposures
    now         the time that is decided for

Numbers are doubles (write 18.0), times are timestamps, categories are a list of strings, empty where unknown. All else
that is unknown is null: a rule that compares a null by order, or does arithmetic with it, fails, and excludes the item
with that as the reason; ask `item.min_age == null || …` first.

Types are checked when a release loads, by declared types. Then each rule is compiled again without them, since the
library takes no null for a typed variable. What a rule reads decides how often it is evaluated: one that asks of the
item alone once per item when the release loads, one that does not ask of the item once per request.

Shapes: N items of the catalogue, n candidates.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from expectations.contracts.decision import Rule
from expectations.contracts.schema import ColumnType
from expectations.errors import SettingError

if TYPE_CHECKING:
    from cel_expr_python import cel

ITEM, USER, CONTEXT = "item.", "user.", "context."
NOW = "now"

_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_STATUS = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_HINTS = (
    ("undeclared reference", "; known are {known}"),
    ("(wrapper(double), int)", "; numbers are doubles, write 18.0 for 18"),
    ("(int, wrapper(double))", "; numbers are doubles, write 18.0 for 18"),
)
_WRAPPERS: Mapping[ColumnType, str] = {
    "string": "google.protobuf.StringValue",
    "number": "google.protobuf.DoubleValue",
    "boolean": "google.protobuf.BoolValue",
    "timestamp": "google.protobuf.Timestamp",
}


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Why an item is not shown.

    Attributes:
        rule: name of the rule or cap.
        reason: in words.
    """

    rule: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CompiledRule:
    """A rule that was checked.

    Attributes:
        rule: as declared.
        expression: evaluates it.
        of_item, of_request: the variables that it reads.
    """

    rule: Rule
    expression: "cel.Expression"
    of_item: Sequence[str]
    of_request: Sequence[str]

    def broken(self, variables: Mapping[str, Any]) -> str:
        """Why an item with these variables, as `_bound` gives them, is not eligible; empty: it is."""
        found = self.expression.eval(data=variables)
        value = found.value()
        if value is True:
            return ""
        if value is False:
            return "the rule does not hold"
        said = _STATUS.sub("", str(value))
        return f"the rule failed: {said}"


def compile_rules(rules: Sequence[Rule], variables: Mapping[str, ColumnType]) -> tuple[CompiledRule, ...]:
    """Parse and type-check rules.

    Args:
        rules: as declared.
        variables: every variable a rule may read -> its type.

    Raises:
        SettingError: names the rule, and line and column in its `when`.
    """
    return tuple(_compile(rule, variables) for rule in rules)


def _compile(rule: Rule, variables: Mapping[str, ColumnType]) -> CompiledRule:
    from cel_expr_python import cel

    typed = {name: _type(kind) for name, kind in variables.items()}
    try:
        kind = cel.NewEnv(variables=typed).compile(rule.when).return_type()
    except RuntimeError as error:
        raise SettingError(_explained(rule, str(error), variables)) from None
    if kind != cel.Type.BOOL:
        raise SettingError(
            f"decision rule {rule.name!r}, line 1, column 1 of `when`: it gives a {kind.name().lower()}, not true or "
            "false; write a condition (and `item.x != null` for has(item.x))"
        )
    named = [name for name in variables if re.search(rf"\b{name.rpartition('.')[2]}\b", rule.when)]
    read = [name for name in named if not _compiles(rule.when, [other for other in named if other != name])]
    expression = cel.NewEnv(variables=dict.fromkeys(read, cel.Type.DYN)).compile(rule.when)
    return CompiledRule(
        rule=rule,
        expression=expression,
        of_item=tuple(name for name in read if name.startswith(ITEM)),
        of_request=tuple(name for name in read if not name.startswith(ITEM)),
    )


def _compiles(when: str, variables: Sequence[str]) -> bool:
    from cel_expr_python import cel

    try:
        cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN)).compile(when)
    except RuntimeError:
        return False
    return True


def _type(kind: ColumnType) -> Any:
    from cel_expr_python import cel

    if kind == "strings":
        return cel.Type.List(cel.Type.STRING)
    return cel.Type.INT if kind == "integer" else cel.Type(_WRAPPERS[kind])


def _explained(rule: Rule, error: str, variables: Mapping[str, ColumnType]) -> str:
    found = _PLACE.search(error)
    line, column, said = found.groups() if found else ("1", "1", error.partition("\n")[0])
    said = said.replace(" (in container '')", "")
    hint = next((hint for part, hint in _HINTS if part in said), "")
    return (
        f"decision rule {rule.name!r}, line {line}, column {column} of `when`: {_STATUS.sub('', said)}"
        + hint.format(known=", ".join(sorted(variables)))
    )


class Eligibility:
    """The rules of a release over its catalogue. Safe to share between threads.

    Args:
        rules: compiled.
        items: variable -> (N,) values of the catalogue's items, None where unknown, [] for categories; those that
            rules read.

    Raises:
        SettingError: a rule reads a variable of items that is not among them.
    """

    def __init__(self, rules: Sequence[CompiledRule], items: Mapping[str, Sequence[Any]]) -> None:
        for rule in rules:
            missing = [name for name in rule.of_item if name not in items]
            if missing:
                raise SettingError(f"decision rule {rule.rule.name!r} reads {missing[0]}, which no item has")
        self.rules = tuple(rules)
        self._items = {name: [_bound(value) for value in values] for name, values in items.items()}
        self._of_item_alone = {
            rule.rule.name: _distinct([items[name] for name in rule.of_item], rule)
            for rule in rules
            if rule.of_item and not rule.of_request
        }

    def exclusions(
        self, candidates: Sequence[int], request: Mapping[str, Any], scenario: str
    ) -> dict[int, Exclusion]:
        """The candidates that may not be shown, each by the first rule that it breaks.

        Args:
            candidates: (n,) places in the catalogue.
            request: the variables that rules read beside those of items; None where unknown.
            scenario: of the request; rules of others are not asked.

        Returns:
            Place -> why, of those excluded.
        """
        excluded: dict[int, Exclusion] = {}
        for compiled in self.rules:
            rule = compiled.rule
            if rule.scenarios and scenario not in rule.scenarios:
                continue
            left = [place for place in candidates if place not in excluded]
            for place, reason in zip(left, self._reasons(compiled, left, request), strict=True):
                if reason:
                    excluded[place] = Exclusion(rule=rule.name, reason=reason)
        return excluded

    def _reasons(
        self, compiled: CompiledRule, candidates: Sequence[int], request: Mapping[str, Any]
    ) -> Sequence[str]:
        if not compiled.of_request and compiled.of_item:
            known = self._of_item_alone[compiled.rule.name]
            return [known[place] for place in candidates]
        own = {name: _bound(request.get(name)) for name in compiled.of_request}
        if not compiled.of_item:
            return [compiled.broken(own)] * len(candidates)
        columns = [(name, self._items[name]) for name in compiled.of_item]
        return [
            compiled.broken({**own, **{name: values[place] for name, values in columns}})
            for place in candidates
        ]


def _bound(value: Any) -> Any:
    """A value as the library takes it for a variable without a type: it takes no datetime, but protobuf's timestamp."""
    if not isinstance(value, datetime):
        return value
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp


def _distinct(columns: Sequence[Sequence[Any]], compiled: CompiledRule) -> np.ndarray:
    """(N,) reasons of a rule that asks of the item alone; items of the same attributes are asked once."""
    seen: dict[Any, str] = {}
    found = []
    for values in zip(*columns, strict=True):
        key = tuple(tuple(value) if isinstance(value, list) else value for value in values)
        if key not in seen:
            bound = map(_bound, values)
            seen[key] = compiled.broken(dict(zip(compiled.of_item, bound, strict=True)))
        found.append(seen[key])
    return np.array(found, dtype=object)
