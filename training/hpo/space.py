"""The space of a search: for each setting of the recipe that is searched, Optuna's distribution of its values."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from optuna import Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from expectations.errors import SettingError
from training.config.recipe import Recipe
from training.config.settings import nested, read_toml, typed

FIXED = (  # trials could not be compared
    "seed",
    "early_stopping.metric",
    "early_stopping.refit",
    "calibration.enabled",
    "warm_start.epoch_fraction",
    "warm_start.max_consecutive",
)

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Space = Mapping[str, Distribution]


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
    given: dict[str, Any] = {}
    sections = recipe.as_dict()
    for name, value in read_toml(
        path or files("training.config").joinpath("recipes/space.toml"), where=where
    ).items():
        is_section = isinstance(sections.get(name), dict) and isinstance(value, dict)
        given |= {f"{name}.{setting}": one for setting, one in value.items()} if is_section else {name: value}
    kinds = {name: type(value) for name, value in recipe.flat().items() if name not in FIXED}
    for name in given:
        if name not in kinds:
            reason = "must be the same in every trial" if name in FIXED else "is no setting of the recipe"
            raise SettingError(f"{where}: {name!r} {reason}; search some of {', '.join(sorted(kinds))}")
    if not given:
        raise SettingError(f"{where}: nothing to search; name at least one setting")
    space = {name: _distribution(where, name, kinds[name], value) for name, value in given.items()}
    for name, values in space.items():
        for value in _ends(values):
            recipe.updated(**nested({name: value}))  # says what is wrong with it
    return space


def suggested(trial: Trial, space: Space) -> dict[str, Any]:
    """A trial's values, by dotted name."""
    found: dict[str, Any] = {}
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            found[name] = trial.suggest_categorical(name, values.choices)
        elif isinstance(values, IntDistribution):
            found[name] = trial.suggest_int(name, values.low, values.high, log=values.log)
        else:
            found[name] = trial.suggest_float(name, values.low, values.high, log=values.log)
    return found


def holds(values: Distribution, value: Any) -> bool:
    """Whether a setting's value is one that is searched."""
    if isinstance(values, CategoricalDistribution):
        return value in values.choices
    return bool(values.low <= value <= values.high)


def _ends(values: Distribution) -> tuple[Any, ...]:
    if isinstance(values, CategoricalDistribution):
        return tuple(values.choices)
    return values.low, values.high


def _distribution(where: str, name: str, kind: type, value: Any) -> Distribution:
    if isinstance(value, list) and value:
        return CategoricalDistribution([typed(where, name, kind, one) for one in value])
    if (
        isinstance(value, dict)
        and kind in (int, float)
        and {"low", "high"} <= set(value) <= {"low", "high", "log"}
    ):
        low, high = (typed(where, name, kind, value[end]) for end in ("low", "high"))
        log = value.get("log", False)
        if low < high and isinstance(log, bool) and not (log and low <= 0):
            return (IntDistribution if kind is int else FloatDistribution)(low, high, log=log)
    raise SettingError(
        f"{where}: {name} is {value!r}; give a list of choices, or for a number {{ low = …, high = … }} with low "
        "below high, and log = true where low is above 0"
    )
