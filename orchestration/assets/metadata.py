"""Results as Dagster metadata: tables, pictures and links that people look at in the UI."""

import base64
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from expectations.storage.masking import Mask
from expectations.suites.data_docs import SITE
from orchestration.environment import DATA_DOCS_URL, TENSORBOARD_URL
from orchestration.pipeline.ladder import STEPS, gain_text
from orchestration.run_events import MAX_SAMPLES, rule_text

PREVIEW_ROWS = 5
MAX_CELL = 80


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG image shown in place."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table; what a row does not say is left empty."""
    if not rows:
        return dg.MetadataValue.md("no rows")
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def preview(folder: Path, personal: Collection[str], mask: Mask) -> dg.MarkdownMetadataValue:
    """The first rows of a Parquet file, or of the first file of a folder, with the personal columns masked."""
    import pyarrow.parquet as pq

    files = [folder] if folder.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        return table([])
    batch = next(pq.ParquetFile(files[0]).iter_batches(batch_size=PREVIEW_ROWS), None)
    rows = batch.to_pylist() if batch is not None else []
    for row in rows:
        row.update({name: mask(name, row[name]) for name in row.keys() & personal if row[name] is not None})
    return table(rows)


def page(path: Path) -> dg.MetadataValue:
    """A link to a page of Data Docs where these are served, which a browser follows from the UI; else its path."""
    address = os.environ.get(DATA_DOCS_URL)
    if not address:
        return dg.MetadataValue.path(path)
    _, _, below = path.as_posix().partition(f"{SITE.as_posix()}/")
    return dg.MetadataValue.url(f"{address}/{quote(below)}")


def curves(folder: str) -> dict[str, dg.MetadataValue]:
    """Where a run's curves are: their folder, and where TensorBoard is served, a link to them."""
    found: dict[str, dg.MetadataValue] = {"tensorboard_folder": dg.MetadataValue.path(folder)}
    if address := os.environ.get(TENSORBOARD_URL):
        run = quote(Path(folder).name)
        found["tensorboard"] = dg.MetadataValue.url(f"{address}/?runFilter={run}#timeseries")
    return found


def scalars(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The single numbers among metrics, without curves, tables and what was not measured."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict | list | None)}


def metrics(found: Mapping[str, Any], scorers: Sequence[str]) -> dg.MarkdownMetadataValue:
    """A row of metrics for each scorer that was measured."""
    return table([{"scorer": name, **scalars(found[name])} for name in scorers if found.get(name)])


def ladder(found: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an evaluation: what each part of the model adds, which step is proposed, what was left out."""
    rows = [
        {
            "step": STEPS[step["step"]],
            **scalars(step["metrics"]),
            "over the step before": gain_text(step["gain"]),
        }
        for step in found["ladder"]
    ]
    return {
        "ladder": table(rows),
        "proposal": found["proposal"],
        "proposal_reason": found["proposal_reason"],
        "left_out": "; ".join(found["left_out"]) or "nothing",
    }


def failed_rule(
    name: str, rule: str, rows: int | None, sample: Sequence[Any], message: str
) -> dict[str, Any]:
    """A broken rule of a table, or of the gate, as the sensors read it from a check's metadata."""
    return {
        "table": name,
        "rule": rule,
        "rows": rows,
        "sample": list(sample[:MAX_SAMPLES]),
        "message": message,
    }


def broken_rules(rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metadata of a check that failed: its rules for the sensors, and as sentences for people."""
    sentences = "\n".join(f"- {rule_text(rule)}" for rule in rules) or "none"
    return {"failed_rules": dg.MetadataValue.json(list(rules)), "broken": dg.MetadataValue.md(sentences)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"
