"""The recipe: every setting of a training run, read from TOML by sections, checked once, saved with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.config.settings import between, check, choice, each_setting, filled, read_settings


def _rate() -> Any:
    """A sampling rate or fraction, above 0."""
    return between(1e-6, 1.0)


def _dropout(**default: Any) -> Any:
    return between(0.0, 0.99, **default)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """The language model."""

    name: str
    max_tokens: int
    trainable_layers: int = between(-1)
    pooling: str = choice("mean", "first", "last")
    adapter: str = choice("none", "lora", "adalora", "prefix", "ia3", "bottleneck")
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
    epochs: int = between(0)
    learning_rate: float
    weight_decay: float = between(0)
    negatives_per_positive: float
    batch_size: int
    listwise_weight: float = between(0)
    query_groups_per_step: int
    boosting_models: int = between(0)
    num_trees: int
    num_leaves: int = between(2, 63)
    tree_learning_rate: float


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """What is learned without any label: the shop's language, and users' next interactions."""

    language_objective: str = choice("masked", "causal", "contrastive")
    language_epochs: int = between(0)
    language_batch_size: int
    language_learning_rate: float
    next_interaction_epochs: int = between(0)
    next_interaction_steps: int
    next_interaction_batch_size: int
    next_interaction_candidates: int
    next_interaction_learning_rate: float


@dataclass(frozen=True, kw_only=True)
class FinetuningSettings:
    """f, g and the language model together."""

    epochs: int = between(0)
    patience: int
    texts_per_step: int
    history_texts_per_step: int = between(0)
    negatives_per_positive: float
    max_rows_per_step: int
    encoder_learning_rate: float = between(0)
    adapter_learning_rate: float = between(0)
    layerwise_decay: float = between(0.01, 1.0)
    text_model_learning_rate: float
    tabular_model_learning_rate: float = between(0)


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """AdamW in every phase."""

    weight_decay: float = between(0)
    warmup_fraction: float = _dropout()
    clip_norm: float


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingSettings:
    """What the validation part decides."""

    metric: str = choice("log_loss", "average_precision", "auc", "ndcg_at_10")
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
    max_consecutive: int = between(0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every setting of a run; what each means is written beside it in `recipes/default.toml`.

    Raises:
        SettingError: a value is outside its range.
    """

    seed: int = between(0)
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
        check("recipe", self)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON-able values by section, in the order of its file."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Every setting by its dotted name, such as "finetuning.epochs"."""
        return {name: value for name, (_, value) in each_setting(self).items()}

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


def read_recipe(path: Path | None) -> Recipe:
    """Read a recipe; settings it leaves out come from the packaged default.

    Args:
        path: a TOML file, or None for the packaged default itself.

    Raises:
        SettingError: no such file, not TOML, an unknown setting, or a value of a wrong type or range.
    """
    return read_settings(Recipe, "default.toml", path, what="recipe")


def recipe_from(values: dict[str, Any], *, where: str) -> Recipe:
    """A recipe from plain values, such as a bundle's manifest holds.

    Raises:
        SettingError: a setting is unknown, missing, or of a wrong type or range.
    """
    return filled(Recipe, values, where=where)
