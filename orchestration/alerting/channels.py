"""Alerts sent by apprise: to webhooks, e-mail and whatever else it knows.

Own code beside it: which settings make which service, Slack's text, and what may be told of a failure, as
apprise's messages may hold secrets. Its Slack service knows hooks.slack.com only; a Slack-compatible
webhook anywhere else takes what its `json` service posts, with the fields renamed.
"""

import logging
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from expectations.errors import SettingError, TransientError
from orchestration.alerting.alert import Alert, Severity

TIMEOUTS = {"cto": 10.0, "rto": 10.0}
"""Seconds that a channel has to connect, and to answer, by apprise's names."""

SLACK, SLACK_CHARACTERS = "Slack webhook (RECOMMENDER_SLACK_WEBHOOK)", 30_000
"""Slack cuts longer texts."""

MAX_ALERTS = 10
"""Alerts in one message: as many as Slack's text has room for."""

Service = str | dict[str, Any]
"""What apprise makes a service of: its address, or the parts of one. Holds secrets: never print it."""


def read_services(environ: Mapping[str, str]) -> dict[str, Service]:
    """The channels that the settings name, by a name for people that holds no secret; by default none.

    Each recipient of e-mail is a channel, so that one that fails is told again alone. An address of
    RECOMMENDER_ALERT_URLS that has several targets is one channel: where one target fails, all are told again.

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
    if smtp["HOST"] and not (smtp["FROM"] and _parts(smtp["TO"])):
        raise SettingError(
            "RECOMMENDER_SMTP_HOST is set; set RECOMMENDER_SMTP_FROM and RECOMMENDER_SMTP_TO too"
        )
    for recipient in _parts(smtp["TO"]) if smtp["HOST"] else ():
        services[f"e-mail to {recipient} (RECOMMENDER_SMTP_TO)"] = {
            "schema": "mailto",
            "host": smtp["HOST"],
            "smtp_host": smtp["HOST"],
            "port": int(port),
            "secure_mode": "starttls" if starttls else "insecure",
            "user": smtp["USER"] or None,
            "password": smtp["PASSWORD"] or None,
            "from_addr": smtp["FROM"],
            "targets": [recipient],
            "format": "text",
            **TIMEOUTS,
        }
    for place, address in enumerate(_parts(environ.get("RECOMMENDER_ALERT_URLS", "")), start=1):
        services[f"address {place} of RECOMMENDER_ALERT_URLS"] = address
    return services


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def send(alerts: Sequence[Alert], channel: str, service: Service) -> None:
    """Send alerts to one channel, in one message.

    Args:
        alerts: at least one, at most `MAX_ALERTS`.
        channel: its name in `read_services`.
        service: what it is there.

    Raises:
        TransientError: the channel did not take them; says why, without its secrets.
    """
    first = " ".join(alerts[0].title.split())
    title = first if len(alerts) == 1 else f"{first} (and {len(alerts) - 1} more)"
    message = {"title": title, "body": "\n\n".join(alert.text() for alert in alerts)}
    severe = any(alert.severity == Severity.ERROR for alert in alerts)
    reason = _deliver(service, {"body": slack_text(alerts)} if channel == SLACK else message, severe=severe)
    if reason:
        raise TransientError(reason)


def slack_text(alerts: Sequence[Alert]) -> str:
    """Up to `MAX_ALERTS` alerts in Slack's markup."""
    parts = []
    for alert in alerts:
        text = alert.text().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        title, _, rest = text.partition("\n")
        parts.append(f"*{title}*\n{rest}"[: SLACK_CHARACTERS // MAX_ALERTS])
    return "\n\n".join(parts)


def _deliver(service: Service, message: Mapping[str, str], *, severe: bool) -> str:
    """Tell one channel; why it was not told, empty where it was."""
    import apprise

    with _Records() as records:
        try:
            channel = apprise.Apprise.instantiate(service)
            if channel is None:
                return "apprise cannot read this address"
            kind = apprise.NotifyType.FAILURE if severe else apprise.NotifyType.INFO
            # its records are no evidence: one of them is the message, which may tell of an error
            if channel.notify(**message, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
                return ""
            return records.reason() or "it did not take them"
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
        """Why a channel failed, in the parts of its messages that hold no secret; empty where none says it."""
        if any(text.startswith("Dropped invalid") for text in self.texts):
            return "RECOMMENDER_SMTP_TO or _FROM is no e-mail address"
        found = [part for text in self.texts for part in self._tellable.findall(text)]
        return re.sub(r"error=|\(", "answered ", found[-1]).rstrip(", ") if found else ""
