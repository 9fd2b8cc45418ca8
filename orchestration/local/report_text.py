"""What a run came to, as text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "ndcg_at_10": "NDCG@10",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "num_exposures": "exposures",
    "num_positive": "positives",
}
COLUMNS = {
    "zero_shot": "zero-shot",
    "model": "model",
    "lightgbm": "LightGBM",
    "popularity": "popularity",
}


def report_table(report: Mapping[str, Any]) -> str:
    """The tables of a run's report: data, quality on the test part, the gate's rules, time.

    Args:
        report: content of `reports/latest.json`; parts that it lacks are left out.
    """
    parts = [
        _data(report.get("tables") or {}),
        _checks(report.get("checks") or {}),
        _quality(report),
        _gate(report.get("gate") or {}),
        _seconds(report.get("seconds") or {}),
    ]
    if report.get("bundle"):
        parts.append(f"model {str(report['bundle'])[:12]}")
    return "\n\n".join(part for part in parts if part)


def recommendation_text(answer: Mapping[str, Any], *, most: int = 3, width: int = 160) -> str:
    """One answer of POST /recommend: the items' text, probability and reasons.

    Args:
        answer: the answer's JSON.
        most: how many items to show.
        width: characters of an item's text to show.
    """
    note = "  (new shopper)" if answer.get("cold_start") else ""
    lines = [f"household {answer['user_id']}{note}"]
    for place, item in enumerate(answer["items"][:most], start=1):
        text = " ".join(str(item.get("text") or item["item_id"]).split())
        shown = text if len(text) <= width else text[: width - 1] + "…"
        lines.append(f"  {place}. {shown}")
        parts = f"text {item['text_logit']:+.2f}, tabular {item['tabular_logit']:+.2f}"
        lines.append(f"     probability {item['probability']:.2%}  ({parts})")
        lines += [f"     because {reason}" for reason in item.get("reasons") or ()]
    if not answer["items"]:
        lines.append("  nothing to show at this moment")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under each other: the first column to the left, the others to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    rule = "─" * max(len(line) for line in lines)
    return "\n".join([lines[0], rule, *lines[1:]])


def _data(tables: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["table", "rows", "quarantined"]]
    for name, facts in tables.items():
        rows.append([name, _number(facts.get("rows")), _number(facts.get("quarantined"))])
    return _columns(rows) if tables else ""


def _checks(checks: Mapping[str, Any]) -> str:
    counted = [f"{_number(checks[key])} {key}" for key in ("passed", "warned", "failed") if key in checks]
    return f"data checks: {', '.join(counted)}" if counted else ""


def _quality(report: Mapping[str, Any]) -> str:
    there = {key: title for key, title in COLUMNS.items() if report.get(key)}
    rows = [["on the test part", *there.values()]]
    for measure, title in MEASURES.items():
        values = [report[column].get(measure) for column in there]
        if any(value is not None for value in values):
            rows.append([title, *(_number(value) for value in values)])
    return _columns(rows) if there else ""


def _gate(gate: Mapping[str, Any]) -> str:
    if "approved" not in gate:
        return ""
    decision = "the gate APPROVED this model" if gate["approved"] else "the gate REJECTED this model"
    rows = [["rule", "value", "bound", ""]]
    for rule in gate.get("rules") or ():
        outcome = "passed" if rule["passed"] else "FAILED"
        rows.append([rule["rule"], _number(rule.get("value")), _number(rule.get("bound")), outcome])
    return f"{decision}\n{_columns(rows)}" if len(rows) > 1 else decision


def _seconds(seconds: Mapping[str, float]) -> str:
    rows = [["step", "seconds"]]
    rows += [[step, f"{value:,.1f}"] for step, value in seconds.items()]
    rows.append(["together", f"{sum(seconds.values()):,.1f}"])
    return _columns(rows) if seconds else ""
