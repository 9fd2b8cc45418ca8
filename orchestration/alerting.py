"""What somebody should look at, told to the log, and by apprise to webhooks, e-mail and whatever else it knows.

Own code beside it: which settings make which service, Slack's text, and what may be told of a failure, as
apprise's messages may hold secrets. Its Slack service knows hooks.slack.com only; a Slack-compatible
webhook anywhere else takes what its `json` service posts, with the fields renamed. Knows nothing of Dagster.
"""

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from expectations.errors import SettingError, TransientError

TIMEOUTS = {"cto": 10.0, "rto": 10.0}
"""Seconds that a channel has to connect, and to answer, by apprise's names."""

SLACK, SLACK_CHARACTERS = "Slack webhook (RECOMMENDER_SLACK_WEBHOOK)", 30_000
"""Slack cuts longer texts."""

Service = str | dict[str, Any]
"""What apprise makes a service of: its address, or the parts of one. Holds secrets: never print it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing that somebody should look at.

    Attributes:
        title: what happened, in one line.
        table: the table it is about; empty where it is about none.
        rule: the rule that was broken.
        num_rows: how many rows broke it; None where rows do not count.
        sample: a few of the offending values, in words.
        link: where to read on: a run's page or a folder.
        detail: anything else worth knowing.
    """

    title: str
    table: str = ""
    rule: str = ""
    num_rows: int | None = None
    sample: Sequence[str] = ()
    link: str = ""
    detail: str = ""

    def text(self) -> str:
        """The alert in plain text, one fact per line."""
        rows = None if self.num_rows is None else f"{self.num_rows:,}"
        facts = {
            "table": self.table,
            "rule": self.rule,
            "rows": rows,
            "sample": ", ".join(str(value) for value in self.sample),
            "detail": self.detail,
            "see": self.link,
        }
        return "\n".join([self.title, *(f"{name}: {value}" for name, value in facts.items() if value)])


def read_services(environ: Mapping[str, str]) -> dict[str, Service]:
    """The channels that the settings name, by a name for people; by default none.

    Args:
        environ: RECOMMENDER_SLACK_WEBHOOK; RECOMMENDER_SMTP_ HOST, PORT, FROM, TO (between commas), USER,
            PASSWORD, STARTTLS; RECOMMENDER_ALERT_URLS (of https://appriseit.com/services/, between commas).

    Raises:
        SettingError: a webhook or a port that is none, or a mail server without From or To.
    """
    services: dict[str, Service] = {}
    webhook = urlsplit(environ.get("RECOMMENDER_SLACK_WEBHOOK", "").strip())
    if webhook.geturl() and not (webhook.hostname and webhook.scheme in ("http", "https")):
        raise SettingError("RECOMMENDER_SLACK_WEBHOOK is no address; write it as https://…")
    if webhook.hostname:
        services[SLACK] = {
            "schema": "json",
            "secure": webhook.scheme == "https",
            "host": webhook.hostname,
            "port": webhook.port,
            "user": webhook.username,
            "password": webhook.password,
            "fullpath": webhook.path,
            "params": dict(parse_qsl(webhook.query)),
            "payload": {"message": "text", "title": "", "version": "", "attachments": "", "type": ""},
            **TIMEOUTS,
        }
    names = ("HOST", "PORT", "FROM", "TO", "USER", "PASSWORD", "STARTTLS")
    smtp = {name: environ.get(f"RECOMMENDER_SMTP_{name}", "").strip() for name in names}
    starttls = smtp["STARTTLS"].lower() in ("1", "true", "yes", "on")
    port = smtp["PORT"] or ("587" if starttls else "25")
    if not port.isdigit() or not 0 < int(port) < 65_536:
        raise SettingError(f"RECOMMENDER_SMTP_PORT is {port!r}; give a number from 1 to 65535")
    if smtp["HOST"]:
        if not (smtp["FROM"] and _parts(smtp["TO"])):
            raise SettingError(
                "RECOMMENDER_SMTP_HOST is set; set RECOMMENDER_SMTP_FROM and RECOMMENDER_SMTP_TO too"
            )
        services[f"e-mail by {smtp['HOST']}:{port} (RECOMMENDER_SMTP_*)"] = {
            "schema": "mailto",
            "host": smtp["HOST"],
            "smtp_host": smtp["HOST"],
            "port": int(port),
            "secure_mode": "starttls" if starttls else "insecure",
            "user": smtp["USER"] or None,
            "password": smtp["PASSWORD"] or None,
            "from_addr": smtp["FROM"],
            "targets": _parts(smtp["TO"]),
            "format": "text",
            **TIMEOUTS,
        }
    for place, address in enumerate(_parts(environ.get("RECOMMENDER_ALERT_URLS", "")), start=1):
        services[f"address {place} of RECOMMENDER_ALERT_URLS"] = address
    return services


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def send(alerts: Sequence[Alert], services: Mapping[str, Service]) -> None:
    """Send alerts to every channel, and to the log.

    Raises:
        TransientError: a channel failed, after the others were told; names it without its secrets.
    """
    if not alerts:
        return
    for alert in alerts:
        log.warning("%s", alert.text().replace("\n", "; "))
    first = " ".join(alerts[0].title.split())
    title = first if len(alerts) == 1 else f"{first} (and {len(alerts) - 1} more)"
    message = {"title": title, "body": "\n\n".join(alert.text() for alert in alerts)}
    failures = []
    for name, service in services.items():
        reason = _deliver(service, {"body": slack_text(alerts)} if name == SLACK else message)
        if reason:
            failures.append(f"{name}: {reason}")
    if failures:
        raise TransientError(
            f"{len(alerts)} alerts were not delivered by {'; '.join(failures)}; "
            "correct the setting or try again"
        )


def slack_text(alerts: Sequence[Alert]) -> str:
    """The alerts in Slack's markup, as many as it takes."""
    parts: list[str] = []
    for place, alert in enumerate(alerts):
        text = alert.text().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        title, _, rest = text.partition("\n")
        parts.append(f"*{title}*\n{rest}"[: SLACK_CHARACTERS // 10])
        if sum(map(len, parts)) > SLACK_CHARACTERS:
            parts[-1] = f"and {len(alerts) - place} more: see the log"
            break
    return "\n\n".join(parts)


def _deliver(service: Service, message: Mapping[str, str]) -> str:
    """Tell one channel; why it was not told, empty where it was."""
    import apprise

    with _Records() as records:
        try:
            channel = apprise.Apprise.instantiate(service)
            if channel is None:
                return "apprise cannot read this address"
            kind, markup = apprise.NotifyType.WARNING, apprise.NotifyFormat.TEXT
            delivered = channel.notify(**message, notify_type=kind, body_format=markup)
            return records.reason() or ("" if delivered else "it did not take them")
        # whatever one channel does, the next one must be told
        except Exception as error:
            return type(error).__name__


class _Records(logging.Handler):
    """What apprise says inside a block; as it may hold secrets, it goes to no other log."""

    _turn = threading.Lock()
    _tellable = re.compile(
        r"\[Errno -?\d+\] [A-Za-z ]+|error=\d{3}|\(\d{3}, |STARTTLS [A-Za-z ]+|timed out|certificate verify failed"
    )

    def __enter__(self) -> "_Records":
        self.texts: list[str] = []
        self._turn.acquire()
        self._set(propagate=False, level=logging.DEBUG)
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        logging.getLogger("apprise").removeHandler(self)
        self._set(propagate=True, level=logging.NOTSET)
        self._turn.release()

    @staticmethod
    def _set(*, propagate: bool, level: int) -> None:
        logging.getLogger("apprise").setLevel(level)
        for name in ("apprise", "urllib3"):
            logging.getLogger(name).propagate = propagate

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def reason(self) -> str:
        """Why a channel failed, in the parts of its messages that hold no secret; empty where it did not."""
        if any(text.startswith("Dropped invalid") for text in self.texts):
            return "RECOMMENDER_SMTP_TO or _FROM is no e-mail address"
        found = [part for text in self.texts for part in self._tellable.findall(text)]
        return re.sub(r"error=|\(", "answered ", found[-1]).rstrip(", ") if found else ""
