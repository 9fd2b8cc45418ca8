"""The space of a search: for each setting of the recipe that is searched, choices or a range."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from expectations.errors import SettingError
from training.config.recipe import Recipe, nested, read_toml, typed

KEPT = (  # trials could not be compared
    "seed",
    "early_stopping.metric",
    "early_stopping.refit",
    "calibration.enabled",
    "warm_start.epoch_fraction",
    "warm_start.max_consecutive",
)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Some values of a setting."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values."""
        return self.values


@dataclass(frozen=True, kw_only=True)
class Range:
    """A setting's values from `low` to `high`, both of them included; `log`: even in their logarithm."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Its two ends."""
        return self.low, self.high


Space = Mapping[str, Choices | Range]


def read_space(path: Path | None, recipe: Recipe) -> Space:
    """Read a space from TOML.

    Args:
        path: a TOML file, or None for the packaged space.
        recipe: what the settings belong to.

    Raises:
        SettingError: no such file, not TOML, an unknown setting, nothing to search, or a value that the
            recipe would not take.
    """
    where = f"space {path}" if path else "default space"
    given = read_toml(path or files("training.config").joinpath("recipes/space.toml"), where=where)
    given = {
        dotted: value
        for name, section in given.items()
        for dotted, value in (
            ((f"{name}.{one}", value) for one, value in section.items())
            if isinstance(recipe.as_dict().get(name), dict) and isinstance(section, dict)
            else ((name, section),)
        )
    }
    kinds = {name: type(value) for name, value in recipe.flat().items() if name not in KEPT}
    for name in given:
        if name not in kinds:
            reason = "must be the same in every trial" if name in KEPT else "is no setting of the recipe"
            raise SettingError(f"{where}: {name!r} {reason}; search some of {', '.join(sorted(kinds))}")
    if not given:
        raise SettingError(f"{where}: nothing to search; name at least one setting")
    space = {name: _of(where, name, kinds[name], value) for name, value in given.items()}
    for name, values in space.items():
        for value in values.ends:
            recipe.updated(**nested({name: value}))  # says what is wrong with it
    return space


def _of(where: str, name: str, kind: type, value: Any) -> Choices | Range:
    if isinstance(value, list) and value:
        return Choices(values=tuple(typed(where, name, kind, one) for one in value))
    if (
        isinstance(value, dict)
        and kind in (int, float)
        and {"low", "high"} <= set(value) <= {"low", "high", "log"}
    ):
        low, high = (typed(where, name, kind, value[end]) for end in ("low", "high"))
        log = value.get("log", False)
        if low < high and isinstance(log, bool) and not (log and low <= 0):
            return Range(low=low, high=high, log=log)
    raise SettingError(
        f"{where}: {name} is {value!r}; give a list of choices, or for a number {{ low = …, high = … }} with low "
        "below high, and log = true where low is above 0"
    )
