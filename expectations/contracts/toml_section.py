"""A section of a `source.toml`: that it is a table, and has no setting that nobody reads."""

from collections.abc import Collection, Mapping
from typing import Any

from expectations.errors import SettingError


def mapping(where: str, value: Any) -> dict[str, Any]:
    """The section as a mapping.

    Raises:
        SettingError: it is something else; the message begins with `where`.
    """
    if not isinstance(value, Mapping):
        raise SettingError(f"{where} is {value!r}; write a table of settings, such as {{ name = value }}")
    return dict(value)


def refuse_unknown(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Check that all settings are known.

    Raises:
        SettingError: one is not; the message begins with `where`.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingError(
            f"{where} has an unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}"
        )
