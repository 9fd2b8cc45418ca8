"""Scores of a shop's own rows, from the command line."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.synthetic import make_rows, write_examples
from training.cli import main
from training.inference.files import BLOCK
from training.inference.predictor import Predictor
from training.pipeline.fit import FitResult

FEATURES = ["user_events", "item_popularity", "cross_visits", "context_hour", "item_kind", "context_channel"]
SCORES = ["probability", "text_logit", "tabular_logit"]


@pytest.fixture(name="rows")
def _rows() -> pd.DataFrame:
    rows = make_rows(np.random.default_rng(3), 4, 3)[["user_id", *FEATURES]]
    rows["text"] = [f"Coupon for dog food, offer {number % 5}" for number in range(len(rows))]
    rows["query"] = [None if number % 2 else "show me dog food" for number in range(len(rows))]
    return rows


def predict(bundle: Path, rows: Path, out: Path) -> int:
    return main(["predict", "--bundle", str(bundle), "--input", str(rows), "--out", str(out)])


def expected(bundle: Path, rows: pd.DataFrame) -> pd.DataFrame:
    queries = [query if isinstance(query, str) else None for query in rows["query"]]
    scores = Predictor.load(bundle).score(rows, texts=rows["text"].tolist(), queries=queries)
    return pd.DataFrame({name: getattr(scores, name) for name in SCORES})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_is_scored_as_it_would_be_served(
    suffix: str, rows: pd.DataFrame, fitted: FitResult, tmp_path: Path
) -> None:
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "new" / f"scores.{suffix}"
    assert predict(fitted.bundle, tmp_path / f"rows.{suffix}", out) == 0
    found = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    assert list(found) == ["user_id", *SCORES] and found["user_id"].tolist() == rows["user_id"].tolist()
    assert np.allclose(found[SCORES], expected(fitted.bundle, rows), atol=1e-5)


def test_many_rows_are_scored_by_blocks(rows: pd.DataFrame, fitted: FitResult, tmp_path: Path) -> None:
    many = pd.concat([rows] * (BLOCK // len(rows) + 2), ignore_index=True)
    many["note"] = [None] * (len(many) - 1) + ["only the last row has one"]
    many.to_parquet(tmp_path / "rows.parquet")
    assert predict(fitted.bundle, tmp_path / "rows.parquet", tmp_path / "scores.parquet") == 0
    found = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(found) == len(many) and found["note"].iloc[-1] == many["note"].iloc[-1]
    assert np.allclose(found[SCORES].tail(len(rows)), expected(fitted.bundle, rows), atol=1e-5)


def test_an_examples_folder_of_another_time_is_scored(fitted: FitResult, tmp_path: Path) -> None:
    rows = make_rows(np.random.default_rng(5), 24, 1)
    rows["event_timestamp"] = datetime(2021, 1, 1)
    folder = write_examples(tmp_path / "examples", rows=rows)
    assert predict(fitted.bundle, folder, tmp_path / "scores.parquet") == 0
    found = pd.read_parquet(tmp_path / "scores.parquet")
    assert found["exposure_id"].tolist() == rows["exposure_id"].tolist()
    logit = found["text_logit"].astype(float) + found["tabular_logit"]
    assert np.allclose(found["probability"], 1 / (1 + np.exp(-logit)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns=["context_hour", "item_kind"]), "context_hour, item_kind; add them"),
        (lambda rows: rows.drop(columns="text"), "columns that the bundle reads are missing: text"),
        (lambda rows: rows.assign(text=rows["text"].where(rows.index != 7)), "in 1 rows, the first of them row 7"),
        (lambda rows: rows.assign(user_events="1,5"), "holds no number in 96 rows, the first of them row 0"),
        (lambda rows: rows.head(0), "no rows"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_said(
    change: object, message: str, rows: pd.DataFrame, fitted: FitResult, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(rows).to_csv(tmp_path / "rows.csv", index=False)  # type: ignore[operator]
    assert predict(fitted.bundle, tmp_path / "rows.csv", tmp_path / "scores.parquet") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores.parquet").exists()


def test_a_wrong_path_is_said(fitted: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rows.xlsx").write_text("")
    for rows, out, message in (
        ("absent.csv", "scores.csv", "does not exist"),
        ("rows.xlsx", "scores.csv", "neither .parquet nor .csv"),
        ("rows.xlsx", "scores", "--out"),
    ):
        assert predict(fitted.bundle, tmp_path / rows, tmp_path / out) == 1
        assert message in capsys.readouterr().err
