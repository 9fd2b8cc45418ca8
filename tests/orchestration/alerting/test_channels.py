"""Alerts reach a real HTTP server and a real mail server of this test, or say why not."""

import email
import io
import logging

import pytest

from expectations.errors import SettingError, TransientError
from orchestration.alerting.alert import Alert, Severity
from orchestration.alerting.channels import MAX_ALERTS, SLACK_CHARACTERS, read_services, send, slack_text
from orchestration.local.processes import free_port
from tests.orchestration.conftest import letter_text

ALERT = Alert(
    title="12 orders have a negative amount",
    table="events",
    rule="amount >= 0",
    num_rows=1200,
    sample=("-3.5", "<-1>"),
    link="http://127.0.0.1:3000/runs/1",
    detail="quarantined & kept",
)


@pytest.fixture
def logged():
    """What reaches the handlers of the root logger, all levels of it."""
    root, handler = logging.getLogger(), logging.StreamHandler(io.StringIO())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.stream
    root.setLevel(level)
    root.removeHandler(handler)


def mail_settings(box, **more):
    recipients = "data@shop.example, night@shop.example"
    mail = {"HOST": "127.0.0.1", "PORT": str(box.port), "FROM": "bot@shop.example", "TO": recipients, **more}
    return {f"RECOMMENDER_SMTP_{name}": value for name, value in mail.items()}


def tell(environ, alerts=(ALERT,)):
    """Tell every channel; why some of them were not told."""
    reasons = {}
    for channel, service in read_services(environ).items():
        try:
            send(alerts, channel, service)
        except TransientError as error:
            reasons[channel] = str(error)
    return reasons


def test_slack_gets_a_text_that_says_everything(webhook):
    tell({"RECOMMENDER_SLACK_WEBHOOK": f" {webhook.url} "})
    text = (
        "*12 orders have a negative amount*\ntable: events\nrule: amount &gt;= 0\nrows: 1,200\n"
        "sample: -3.5, &lt;-1&gt;\ndetail: quarantined &amp; kept\nsee: http://127.0.0.1:3000/runs/1"
    )
    assert webhook.received == [{"text": text}]


def test_slack_is_not_sent_more_than_it_takes():
    text = slack_text([Alert(title="t", detail="<" * 10_000)] * MAX_ALERTS)
    assert len(text) < SLACK_CHARACTERS + 100
    assert text.count("*t*") == MAX_ALERTS


def test_a_long_fact_does_not_hide_the_link():
    text = Alert(title="t", detail="x" * 10_000, link="http://127.0.0.1:3000/runs/1").text()
    assert len(text) < 1_100
    assert text.endswith("see: http://127.0.0.1:3000/runs/1")


def test_a_message_that_tells_of_a_lost_connection_was_delivered_all_the_same(webhook):
    alert = Alert(title="t", detail="[Errno 111] Connection refused")
    assert tell({"RECOMMENDER_SLACK_WEBHOOK": webhook.url}, [alert]) == {}
    assert len(webhook.received) == 1


def test_any_service_of_apprise_is_told(webhook, logged):
    urls = f"{webhook.url.replace('http', 'json')}, nowhere://SECRET,"
    reasons = tell({"RECOMMENDER_ALERT_URLS": urls})
    assert reasons == {"address 2 of RECOMMENDER_ALERT_URLS": "apprise cannot read this address"}
    (message,) = webhook.received
    assert (message["title"], message["message"]) == (ALERT.title, ALERT.text())
    assert message["type"] == "failure"
    assert "SECRET" not in logged.getvalue()


def test_what_recovered_is_no_failure(webhook):
    recovered = Alert(title="recovered", severity=Severity.INFO)
    environ = {"RECOMMENDER_ALERT_URLS": webhook.url.replace("http", "json")}
    tell(environ, [recovered])
    tell(environ, [recovered, ALERT])
    assert [message["type"] for message in webhook.received] == ["info", "failure"]


def test_mail_reaches_every_recipient(mail):
    tell(mail_settings(mail), [ALERT, Alert(title="second\nBcc: everybody@example")])
    assert [letter.rcpt_tos for letter in mail.letters] == [["data@shop.example"], ["night@shop.example"]]
    letter = mail.letters[0]
    assert letter.mail_from == "bot@shop.example"
    message = email.message_from_bytes(letter.content)
    assert message["Subject"] == "12 orders have a negative amount (and 1 more)"
    assert ALERT.text() in letter_text(letter)
    assert message["Bcc"] is None


def test_mail_logs_in_and_a_wrong_password_is_told_without_it(mail):
    tell(mail_settings(mail, USER="shop", PASSWORD="right"))
    assert len(mail.letters) == 2
    reasons = tell(mail_settings(mail, USER="shop", PASSWORD="hush"))
    assert list(reasons.values()) == ["answered 535"] * 2
    assert "hush" not in str(reasons)
    assert len(mail.letters) == 2


def test_a_recipient_that_is_no_address_fails_alone(mail):
    assert tell(mail_settings(mail, TO="night, data@shop.example")) == {
        "e-mail to night (RECOMMENDER_SMTP_TO)": "RECOMMENDER_SMTP_TO or _FROM is no e-mail address"
    }
    assert [letter.rcpt_tos for letter in mail.letters] == [["data@shop.example"]]


def test_required_encryption_is_never_left_out(mail):
    for reason in tell(mail_settings(mail, STARTTLS="true")).values():
        assert "STARTTLS extension not supported" in reason
    assert mail.letters == []


def test_one_failing_channel_does_not_stop_the_other(webhook, mail, logged):
    webhook.status = 500
    reasons = tell({**mail_settings(mail), "RECOMMENDER_SLACK_WEBHOOK": webhook.url})
    assert reasons == {"Slack webhook (RECOMMENDER_SLACK_WEBHOOK)": "answered 500"}
    assert len(mail.letters) == 2

    mail.port = free_port()
    gone = f"http://127.0.0.1:{free_port()}/SECRET"
    reasons = tell({**mail_settings(mail), "RECOMMENDER_SLACK_WEBHOOK": gone})
    assert len(reasons) == 3
    assert all("Connection refused" in reason for reason in reasons.values())
    assert "SECRET" not in str(reasons) + logged.getvalue()


def test_encrypted_mail_has_its_own_port_and_a_webhook_its_scheme(mail):
    environ = {**mail_settings(mail, STARTTLS="true", PORT="")}
    slack, mailing, _ = read_services(
        {**environ, "RECOMMENDER_SLACK_WEBHOOK": "https://hooks.slack.com/services/T/B/SECRET"}
    ).values()
    assert slack["secure"] and (slack["host"], slack["fullpath"]) == (
        "hooks.slack.com",
        "/services/T/B/SECRET",
    )
    assert (mailing["port"], mailing["secure_mode"]) == (587, "starttls")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RECOMMENDER_SMTP_HOST": "mail"}, "set RECOMMENDER_SMTP_FROM and RECOMMENDER_SMTP_TO"),
        ({"RECOMMENDER_SMTP_PORT": "smtp"}, "RECOMMENDER_SMTP_PORT is 'smtp'"),
        ({"RECOMMENDER_SLACK_WEBHOOK": "hooks.slack.com/T/B"}, "RECOMMENDER_SLACK_WEBHOOK is no address"),
    ],
)
def test_settings_that_cannot_work_are_refused(environ, message):
    with pytest.raises(SettingError, match=message):
        read_services(environ)
