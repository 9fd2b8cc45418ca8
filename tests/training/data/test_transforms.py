"""Fitted transforms: odd columns, and what the networks make of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from expectations.errors import BundleError, SettingError
from training.config.recipe import read_recipe
from training.data.transforms import Transforms, fit_transforms
from training.models.encodings import NumericEncoding
from training.models.tabular import TabularEnsemble

ROWS = pd.DataFrame(
    {
        "count": np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 10], dtype=np.float32),
        "unknown": np.full(10, np.nan, dtype=np.float32),
        "endless": np.array([1, 2, 3, 4, 5, 6, 7, 8, np.inf, -np.inf], dtype=np.float32),
        "constant": np.ones(10, dtype=np.float32),
        "kind": ["a"] * 6 + ["b"] * 3 + [None],
    }
)
NUMERIC = ("count", "unknown", "endless", "constant")


@pytest.fixture(name="fitted")
def _fitted() -> Transforms:
    return fit_transforms(ROWS, numeric=NUMERIC, categorical=("kind",), bins=4)


def ensemble(transforms: Transforms, size: int, *, base_rate: float) -> TabularEnsemble:
    sizes = {"ensemble_size": size, "hidden_size": 4, "dropout": 0.0}
    settings = read_recipe(None).updated(tabular_model=sizes).tabular_model
    return TabularEnsemble(transforms, settings, base_rate=base_rate)


def test_values_out_of_range_are_clipped_and_nan_stays(fitted: Transforms) -> None:
    new = ROWS.head(3).assign(count=[-5, 1e9, np.nan], endless=[np.inf, 9, 4])
    numbers = fitted.numeric_features(new)
    assert numbers[0, 0] == 0 and numbers[1, 0] == 10 and np.isnan(numbers[2, 0])
    assert np.isnan(numbers[0, 2]) and list(numbers[1:, 2]) == [8, 4]


def test_the_networks_see_only_finite_numbers(fitted: Transforms) -> None:
    numbers = torch.from_numpy(fitted.numeric_features(ROWS))
    encoded = NumericEncoding(fitted)(numbers)
    assert encoded.shape == (10, 4 * 6) and torch.isfinite(encoded).all()
    net = ensemble(fitted, 3, base_rate=0.1)
    assert torch.isfinite(net(numbers, torch.from_numpy(fitted.categorical_features(ROWS)))).all()


def test_what_becomes_known_or_unknown_after_the_training_part_changes_little(fitted: Transforms) -> None:
    net = ensemble(fitted, 3, base_rate=0.1).eval()
    codes = torch.ones(2, 1, dtype=torch.long)

    def logits(count: float, unknown: float, endless: float = 4.0) -> list[float]:
        frame = pd.DataFrame(
            {"count": [count], "unknown": [unknown], "endless": [endless], "constant": [1.0]},
            dtype=np.float32,
        )
        with torch.inference_mode():
            return net(torch.from_numpy(fitted.numeric_features(frame)), codes[:1])[0].tolist()

    assert logits(1, 5) == logits(1, np.nan)  # nothing was known of it
    typical = float(fitted.typical[NUMERIC.index("count")])
    encoded = NumericEncoding(fitted)
    of_typical, of_unknown = (
        encoded(torch.tensor([[value, np.nan, 4.0, 1.0]]))[:, : encoded.edges.shape[1] - 1]
        for value in (typical, np.nan)
    )
    torch.testing.assert_close(of_typical, of_unknown)
    assert logits(1, 5, endless=np.nan) != logits(1, 5)  # both were seen


def test_quantile_bins_fill_one_after_the_other(fitted: Transforms) -> None:
    encoding = NumericEncoding(fitted)
    rows = ROWS.assign(count=np.linspace(0, 10, 10, dtype=np.float32))
    filled = encoding(torch.from_numpy(fitted.numeric_features(rows)))[:, :4]
    assert (filled[1:] >= filled[:-1]).all() and filled[-1].sum() >= 1
    assert ((filled[:, 1:] == 0) | (filled[:, :-1] == 1)).all()


def test_columns_may_come_in_any_order_but_must_come(fitted: Transforms) -> None:
    turned = ROWS[ROWS.columns[::-1]]
    np.testing.assert_array_equal(fitted.numeric_features(turned), fitted.numeric_features(ROWS))
    with pytest.raises(BundleError, match="endless"):
        fitted.numeric_features(ROWS.drop(columns="endless"))
    with pytest.raises(BundleError, match="kind"):
        fitted.categorical_features(ROWS.drop(columns="kind"))


def test_text_in_a_numeric_column_is_refused(fitted: Transforms) -> None:
    with pytest.raises(BundleError, match="numeric"):
        fitted.numeric_features(ROWS.assign(count="many"))


def test_unknown_categories_have_code_0(fitted: Transforms) -> None:
    codes = fitted.categorical_features(pd.DataFrame({"kind": ["a", "b", "new", None]}))
    assert list(codes[:, 0]) == [1, 2, 0, 0]


def test_they_survive_writing(fitted: Transforms, tmp_path: Path) -> None:
    fitted.write(tmp_path / "transforms.json")
    again = Transforms.read(tmp_path / "transforms.json")
    np.testing.assert_array_equal(again.numeric_features(ROWS), fitted.numeric_features(ROWS))
    np.testing.assert_array_equal(again.typical, fitted.typical)
    assert again.category_vocabularies == fitted.category_vocabularies


def test_no_feature_at_all_is_refused() -> None:
    with pytest.raises(SettingError, match="no feature"):
        fit_transforms(ROWS, numeric=(), categorical=(), bins=4)


def test_categorical_alone_is_enough() -> None:
    fitted = fit_transforms(ROWS, numeric=(), categorical=("kind",), bins=4)
    net = ensemble(fitted, 2, base_rate=0.5)
    codes = torch.from_numpy(fitted.categorical_features(ROWS))
    assert net(torch.from_numpy(fitted.numeric_features(ROWS)), codes).shape == (10, 2)
