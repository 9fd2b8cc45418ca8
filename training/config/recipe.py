"""The recipe: every setting of a training run, read from TOML by sections, checked once, saved with the model."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from expectations.errors import SettingError


def _choice(*values: str) -> Any:
    return field(metadata={"choices": values})


def _between(low: float, high: float = math.inf, **default: Any) -> Any:
    return field(metadata={"low": low, "high": high}, **default)


def _rate() -> Any:
    """A sampling rate or fraction, above 0."""
    return _between(1e-6, 1.0)


def _dropout(**default: Any) -> Any:
    return _between(0.0, 0.99, **default)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The language model. A setting without bounds here and below must be above 0, a text not empty."""

    name: str
    max_tokens: int
    trainable_layers: int = _between(-1)
    pooling: str = _choice("mean", "first", "last")
    adapter: str = _choice("none", "lora", "adalora", "prefix", "ia3")
    adapter_rank: int
    batch_size: int
    token_dropout: float = _dropout(default=0.0)  # bundles that were made before it name none


@dataclass(frozen=True, kw_only=True)
class TextModelSettings:
    """f, the text model."""

    num_kernels: int
    projection_size: int
    hidden_size: int
    dropout: float = _dropout()


@dataclass(frozen=True, kw_only=True)
class TabularModelSettings:
    """g, the tabular model: an ensemble of small networks beside boosted trees."""

    quantile_bins: int
    ensemble_size: int
    hidden_size: int
    dropout: float = _dropout()
    epochs: int = _between(0)
    learning_rate: float
    weight_decay: float = _between(0)
    negative_sampling_rate: float = _rate()
    batch_size: int
    listwise_weight: float = _between(0)
    query_groups_per_step: int
    boosting_models: int
    num_trees: int
    num_leaves: int = _between(2, 63)
    tree_learning_rate: float
    tree_weight: float = _between(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """What is learned without any label: the shop's language, and users' next interactions."""

    language_objective: str = _choice("masked", "causal", "contrastive")
    language_epochs: int = _between(0)
    language_batch_size: int
    language_learning_rate: float
    next_interaction_epochs: int = _between(0)
    next_interaction_steps: int
    next_interaction_batch_size: int
    next_interaction_candidates: int
    next_interaction_learning_rate: float


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """f, g and the language model together."""

    epochs: int = _between(0)
    texts_per_step: int
    history_texts_per_step: int = _between(0)
    negative_sampling_rate: float = _rate()
    max_rows_per_step: int
    encoder_learning_rate: float = _between(0)
    adapter_learning_rate: float = _between(0)
    layerwise_decay: float = _between(0.01, 1.0)
    text_model_learning_rate: float
    tabular_model_learning_rate: float = _between(0)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW in every phase."""

    weight_decay: float = _between(0)
    warmup_fraction: float = _dropout()
    clip_norm: float


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """What the validation part decides."""

    metric: str = _choice("average_precision", "auc", "ndcg_at_10", "log_loss")
    patience: int
    refit: bool


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """Platt scaling on the validation part."""

    enabled: bool


@dataclass(frozen=True, kw_only=True)
class WarmStartSettings:
    """A fit that starts from the champion's weights."""

    epoch_fraction: float = _rate()
    max_consecutive: int = _between(0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; what each means is written beside it in `recipes/default.toml`.

    Raises:
        SettingError: a value is outside its range.
    """

    seed: int = _between(0)
    encoder: EncoderSettings
    text_model: TextModelSettings
    tabular_model: TabularModelSettings
    pretraining: PretrainingSettings
    finetuning: FinetuningSettings
    optimizer: OptimizerSettings
    early_stopping: EarlyStoppingSettings
    calibration: CalibrationSettings
    warm_start: WarmStartSettings

    def __post_init__(self) -> None:
        for name, (setting, value) in _settings(self).items():
            problem = _problem(setting.metadata, value)
            if problem:
                raise SettingError(f"recipe: {name} is {value!r}; {problem}")

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values by section, in the order of its file."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, such as "finetuning.epochs"."""
        return {name: value for name, (_, value) in _settings(self).items()}

    def updated(self, **changes: Any) -> "Recipe":
        """The recipe with other values: `seed=3`, or of a section `finetuning={"epochs": 2}`.

        Raises:
            SettingError: a value is outside its range.
            TypeError: there is no such setting.
        """
        given = {
            name: replace(getattr(self, name), **value) if isinstance(value, Mapping) else value
            for name, value in changes.items()
        }
        return replace(self, **given)


def _settings(recipe: Recipe) -> dict[str, tuple[Field[Any], Any]]:
    """Field and value of every setting, by dotted name."""
    found: dict[str, tuple[Field[Any], Any]] = {}
    for top in fields(recipe):
        value = getattr(recipe, top.name)
        if is_dataclass(value):
            found |= {f"{top.name}.{one.name}": (one, getattr(value, one.name)) for one in fields(value)}
        else:
            found[top.name] = (top, value)
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as values by section, for `Recipe.updated`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, _, setting = name.rpartition(".")
        if section:
            found.setdefault(section, {})[setting] = value
        else:
            found[setting] = value
    return found


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


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe; settings it leaves out come from the packaged default.

    Args:
        path: a TOML file, or None for the packaged default itself.

    Raises:
        SettingError: no such file, not TOML, an unknown setting, or a value of a wrong type or range.
    """
    packaged = files("training.config").joinpath("recipes/default.toml").read_text(encoding="utf-8")
    values = tomllib.loads(packaged)
    given = {} if path is None else read_toml(path, where=f"recipe {path}")
    for name, value in given.items():
        if isinstance(values.get(name), dict) and isinstance(value, dict):
            values[name] |= value
        else:
            values[name] = value
    return recipe_from(values, where=str(path or "default recipe"))


def recipe_from(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values, such as a bundle's manifest holds.

    Raises:
        SettingError: a setting is unknown, missing, or of a wrong type or range.
    """
    recipe: Recipe = _filled(Recipe, values, where, section="")
    return recipe


def _filled(kind: Any, values: Any, where: str, *, section: str) -> Any:
    """A dataclass of settings from plain values."""
    if not isinstance(values, dict):
        raise SettingError(f"{where}: {section} is {values!r}; write it as a section [{section}]")
    known = {one.name: one for one in fields(kind)}
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
    return kind(
        **{
            name: _filled(known[name].type, value, where, section=name)
            if is_dataclass(known[name].type)
            else typed(where, prefix + name, known[name].type, value)
            for name, value in values.items()
        }
    )


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
