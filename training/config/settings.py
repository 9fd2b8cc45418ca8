"""Settings from TOML: dataclasses whose fields say their type and bounds, filled and checked once.

A number without bounds must be above 0, a text not empty. Dataclasses with `tomllib` do this in fewer lines than a
validation library would take, and a machine that only trains needs no further package.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from expectations.errors import SettingError

T = TypeVar("T")


def choice(*values: str) -> Any:
    """A field that is one of some texts."""
    return field(metadata={"choices": values})


def between(low: float, high: float = math.inf, **default: Any) -> Any:
    """A field whose number lies between two bounds, both included."""
    return field(metadata={"low": low, "high": high}, **default)


def each_setting(settings: Any) -> dict[str, tuple[Field[Any], Any]]:
    """Field and value of every setting, by dotted name such as "finetuning.epochs"."""
    found: dict[str, tuple[Field[Any], Any]] = {}
    for top in fields(settings):
        value = getattr(settings, top.name)
        if is_dataclass(value):
            found |= {f"{top.name}.{one.name}": (one, getattr(value, one.name)) for one in fields(value)}
        else:
            found[top.name] = (top, value)
    return found


def check(what: str, settings: Any) -> None:
    """Check every setting's bounds; `what` names the whole in the message.

    Raises:
        SettingError: a value is outside them.
    """
    for name, (setting, value) in each_setting(settings).items():
        problem = _problem(setting.metadata, value)
        if problem:
            raise SettingError(f"{what}: {name} is {value!r}; {problem}")


def _problem(bounds: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a setting's value, or None."""
    if "choices" in bounds:
        return None if value in bounds["choices"] else f"choose one of {', '.join(bounds['choices'])}"
    if isinstance(value, str | bool):
        return None if value != "" else "it must not be empty"
    if "low" in bounds:
        low, high = bounds["low"], bounds["high"]
        return None if low <= value <= high else f"it must lie between {low} and {high}"
    return None if 0 < value < math.inf else "it must be above 0"


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as values by section."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, _, setting = name.rpartition(".")
        if section:
            found.setdefault(section, {})[setting] = value
        else:
            found[setting] = value
    return found


def read_settings(kind: type[T], packaged: str, path: Path | None, *, what: str) -> T:
    """Read settings from TOML; those that a file leaves out come from the packaged file.

    Args:
        kind: a dataclass of settings, or of sections of them.
        packaged: name of the file in `recipes/` that has them all.
        path: a TOML file, or None for the packaged one itself.
        what: what the settings are, for messages.

    Raises:
        SettingError: no such file, not TOML, an unknown setting, or a value of a wrong type or range.
    """
    where = f"{what} {path}" if path else f"default {what}"
    values = read_toml(files("training.config").joinpath("recipes", packaged), where=f"default {what}")
    for name, value in ({} if path is None else read_toml(path, where=where)).items():
        if isinstance(values.get(name), dict) and isinstance(value, dict):
            values[name] |= value
        else:
            values[name] = value
    return filled(kind, values, where=where)


def filled(kind: type[T], values: Any, *, where: str, section: str = "") -> T:
    """A dataclass of settings from plain values; `section` names it where it is part of another.

    Raises:
        SettingError: a setting is unknown, missing, or of a wrong type or range.
    """
    if not isinstance(values, dict):
        raise SettingError(f"{where}: {section} is {values!r}; write it as a section [{section}]")
    known: dict[str, Field[Any]] = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    prefix = f"{section}." if section else ""
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingError(
            f"{where}: unknown setting {prefix + unknown[0]!r}; known settings"
            f"{f' of [{section}]' if section else ''}: {', '.join(sorted(known))}"
        )
    missing = sorted(name for name, one in known.items() if one.default is MISSING and name not in values)
    if missing:
        raise SettingError(f"{where}: setting {prefix + missing[0]!r} is missing; add it")
    found: dict[str, Any] = {}
    for name, value in values.items():
        of: Any = known[name].type
        if is_dataclass(of):
            found[name] = filled(of, value, where=where, section=name)  # type: ignore[arg-type]
        else:
            found[name] = typed(where, prefix + name, of, value)
    return kind(**found)


def read_toml(file: Path | Traversable, *, where: str) -> dict[str, Any]:
    """The values of a TOML file; `where` says what it is.

    Raises:
        SettingError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{where} cannot be read ({error.strerror}); name an existing file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{where} is not valid TOML ({error}); correct it") from None


def typed(where: str, name: str, kind: Any, value: Any) -> Any:
    """A setting's value, a whole number as float where one is wanted.

    Raises:
        SettingError: it is of another type.
    """
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise SettingError(
            f"{where}: {name} must be of type {kind.__name__}, not {value!r} ({type(value).__name__}); correct it"
        )
    return value
