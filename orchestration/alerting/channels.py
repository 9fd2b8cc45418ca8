"""How alerts are delivered: by Slack-compatible webhook and by e-mail. Knows nothing of Dagster.

One channel that fails does not keep the other from being told.
"""

import contextlib
import logging
import smtplib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage

import httpx

from expectations.errors import SettingError, TransientError
from orchestration.alerting.alert import Alert

TIMEOUT = 10.0
"""Seconds that a channel has to answer."""

SLACK_BLOCKS, SLACK_SECTION = 50, 3000
"""Slack refuses messages with more blocks, and sections with more characters."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """Where alerts go; by default nowhere but the log.

    Attributes:
        slack_webhook: URL that takes Slack's JSON. Holds a secret.
        smtp_host: mail server; None: no e-mail.
        smtp_port: its port.
        sender: the From address.
        recipients: the To addresses.
        smtp_user, smtp_password: login, if the server asks for one.
        starttls: whether the connection must be encrypted before anything is sent.
    """

    slack_webhook: str | None = field(default=None, repr=False)
    smtp_host: str | None = None
    smtp_port: int = 25
    sender: str = ""
    recipients: Sequence[str] = ()
    smtp_user: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    starttls: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "AlertSettings":
        """Read RECOMMENDER_SLACK_WEBHOOK and RECOMMENDER_SMTP_{HOST,PORT,FROM,TO,USER,PASSWORD,STARTTLS}.

        Raises:
            SettingError: a mail server without From or To, or a port that is none.
        """
        smtp = {
            name: environ.get(f"RECOMMENDER_SMTP_{name}", "").strip()
            for name in ("HOST", "PORT", "FROM", "TO", "USER", "PASSWORD", "STARTTLS")
        }
        starttls = smtp["STARTTLS"].lower() in ("1", "true", "yes", "on")
        port = smtp["PORT"] or ("587" if starttls else "25")
        if not port.isdigit() or not 0 < int(port) < 65_536:
            raise SettingError(f"RECOMMENDER_SMTP_PORT is {port!r}; give a number from 1 to 65535")
        recipients = tuple(part.strip() for part in smtp["TO"].split(",") if part.strip())
        if smtp["HOST"] and not (smtp["FROM"] and recipients):
            raise SettingError(
                "RECOMMENDER_SMTP_HOST is set; set RECOMMENDER_SMTP_FROM and RECOMMENDER_SMTP_TO too"
            )
        return cls(
            slack_webhook=environ.get("RECOMMENDER_SLACK_WEBHOOK", "").strip() or None,
            smtp_host=smtp["HOST"] or None,
            smtp_port=int(port),
            sender=smtp["FROM"],
            recipients=recipients,
            smtp_user=smtp["USER"] or None,
            smtp_password=smtp["PASSWORD"] or None,
            starttls=starttls,
        )


def send(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    """Send alerts to every channel that is set, and to the log.

    Raises:
        TransientError: a channel failed, after the others were told; names it without its secrets.
    """
    if not alerts:
        return
    for alert in alerts:
        log.warning("%s", alert.text().replace("\n", "; "))
    channels = {
        "Slack webhook (RECOMMENDER_SLACK_WEBHOOK)": settings.slack_webhook and _post,
        f"e-mail by {settings.smtp_host}:{settings.smtp_port} (RECOMMENDER_SMTP_*)": settings.smtp_host
        and _mail,
    }
    failures = []
    for name, channel in channels.items():
        if not channel:
            continue
        try:
            channel(alerts, settings)
        # whatever one channel does, the next one must be told
        except Exception as error:
            failures.append(f"{name}: {_reason(error)}")
    if failures:
        raise TransientError(
            f"{len(alerts)} alerts were not delivered by {'; '.join(failures)}; "
            "correct the setting or try again"
        )


def _reason(error: Exception) -> str:
    """Why a channel failed; httpx and smtplib put addresses and answers with secrets in their messages."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"answered {error.response.status_code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return type(error).__name__


def slack_message(alerts: Sequence[Alert]) -> dict[str, object]:
    """Slack's JSON: a plain text for notifications, and one block for each alert."""
    shown = alerts[: SLACK_BLOCKS - 1]
    blocks: list[dict[str, object]] = []
    for alert in shown:
        title, _, rest = alert.text().partition("\n")
        text = f"*{_escape(title)}*\n{_escape(rest)}"[:SLACK_SECTION]
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    if len(shown) < len(alerts):
        more = f"and {len(alerts) - len(shown)} more: see the log"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": more}})
    return {"text": _escape(_subject(alerts)), "blocks": blocks}


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _subject(alerts: Sequence[Alert]) -> str:
    first = " ".join(alerts[0].title.split())
    return first if len(alerts) == 1 else f"{first} (and {len(alerts) - 1} more)"


def _post(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    response = httpx.post(str(settings.slack_webhook), json=slack_message(alerts), timeout=TIMEOUT)
    response.raise_for_status()


def _mail(alerts: Sequence[Alert], settings: AlertSettings) -> None:
    message = EmailMessage()
    message["Subject"] = _subject(alerts)
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.recipients)
    message.set_content("\n\n".join(alert.text() for alert in alerts) + "\n")
    with _connection(settings) as connection:
        connection.send_message(message)


@contextlib.contextmanager
def _connection(settings: AlertSettings) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(str(settings.smtp_host), settings.smtp_port, timeout=TIMEOUT) as connection:
        if settings.starttls:
            connection.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            connection.login(settings.smtp_user, settings.smtp_password or "")
        yield connection
