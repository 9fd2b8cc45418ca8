"""What a run came to, as text for a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.pipeline.ladder import STEPS, gain_text
from serving.release.history import Pin, read_history, read_pin
from serving.release.pointer import CURRENT, DeploymentPointer

MAX_ITEMS, TEXT_WIDTH = 3, 160
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
    "logistic_regression": "logistic",
    "popularity": "popularity",
    "constant": "constant",
    "champion": "champion",
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
        _ladder(report),
        "\n".join(report.get("left_out") or ()),
        _gate(report.get("gate") or {}),
        _refit(report.get("refit") or {}),
        _pin(report),
        _seconds(report.get("seconds") or {}),
    ]
    if report.get("bundle"):
        parts.append(f"model {str(report['bundle'])[:12]}")
    return "\n\n".join(part for part in parts if part)


def recommendation_text(reply: Mapping[str, Any]) -> str:
    """One reply of POST /recommend, its JSON: text, probability and reasons of the first items."""
    note = "  (new shopper)" if reply.get("cold_start") else ""
    lines = [f"household {reply['user_id']}{note}"]
    for place, item in enumerate(reply["items"][:MAX_ITEMS], start=1):
        text = " ".join(str(item.get("text") or item["item_id"]).split())
        shown = text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"
        lines.append(f"  {place}. {shown}")
        parts = f"text {item['text_logit']:+.2f}, tabular {item['tabular_logit']:+.2f}"
        lines.append(f"     probability {item['probability']:.2%}  ({parts})")
        lines += [f"     because {reason}" for reason in item.get("reasons") or ()]
    if not reply["items"]:
        lines.append("  nothing to show at this moment")
    return "\n".join(lines)


def serving_line(deployment: Path) -> str:
    """Which model serves, since when, and whether it is pinned, of a deployment's folder.

    Raises:
        SettingError: the pointer or the pin cannot be read.
    """
    pointer, pin = DeploymentPointer.read(deployment / CURRENT), read_pin(deployment)
    if pointer is None:
        return "no model was deployed"
    begun = [
        entry.time
        for entry in read_history(deployment)
        if entry.action in ("deploy", "rollback") and entry.bundle == pointer.bundle
    ]
    since = (begun[-1] if begun else pointer.deployed_at)[:16].replace("T", " ")
    pinned = f"; {pin.text()}" if pin else ", not pinned"
    return f"model {pointer.bundle[:12]} serves since {since} UTC{pinned}"


def refusal_text(report: Mapping[str, Any]) -> str:
    """Why the gate refused a run's model, or its refit, and what serves now; empty where it did not."""
    decisions = [report["gate"], report.get("refit") or report["gate"]]
    refused = next((decision for decision in decisions if not decision["approved"]), None)
    if refused is None:
        return ""
    rules = [rule for rule in refused.get("rules") or () if not rule["passed"]]
    reasons = [f"  {rule['rule']}: {rule.get('reason') or 'not passed'}" for rule in rules]
    bundle = str(refused.get("bundle") or report["bundle"])[:12]
    return "\n".join(
        [
            f"the gate refused model {bundle}, so it does not serve; what served before goes on:",
            *reasons,
            refused.get("needs_person")
            or "bring more data, another recipe (RECOMMENDER_RECIPE), or rules of your own (RECOMMENDER_GATE)",
        ]
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under each other: the first column to the left, the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in rows]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def _data(tables: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("rows", "quarantined")
    rows = [[name, *(_number(facts.get(column)) for column in columns)] for name, facts in tables.items()]
    return _columns([["table", *columns], *rows]) if tables else ""


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


def _ladder(report: Mapping[str, Any]) -> str:
    steps = report.get("ladder") or ()
    rows = [["part of the model", "AUC", "NDCG@10", "log loss", "over the step before"]]
    for step in steps:
        measured = (_number(step["metrics"].get(name)) for name in ("auc", "ndcg_at_10", "log_loss"))
        gain = gain_text(step["gain"]) if len(rows) > 1 else ""
        rows.append([STEPS[step["step"]], *measured, gain])
    return f"{_columns(rows)}\nproposed: {report['proposal_reason']}" if steps else ""


def _refit(refit: Mapping[str, Any]) -> str:
    if not refit:
        return ""
    failed = [f"{rule['rule']}: {rule['reason']}" for rule in refit["rules"] if not rule["passed"]]
    outcome = (
        "passed its sanity gate" if refit["approved"] else f"FAILED its sanity gate: {'; '.join(failed)}"
    )
    return f"fitted again to all known rows: model {str(refit['bundle'])[:12]} {outcome}"


def _pin(report: Mapping[str, Any]) -> str:
    return Pin(**report["pin"]).text(report.get("waiting")) if report.get("pin") else ""


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
    steps = {**seconds, "together": sum(seconds.values())}
    rows = [[step, f"{value:,.1f}"] for step, value in steps.items()]
    return _columns([["step", "seconds"], *rows]) if seconds else ""
