"""Alerts reach a real HTTP server and a real mail server of this test, or say why not."""

import logging

import pytest

from expectations.errors import SettingError, TransientError
from orchestration.alerting.alert import Alert
from orchestration.alerting.channels import SLACK_BLOCKS, AlertSettings, send, slack_message
from tests.orchestration.ports import free_port

ALERT = Alert(
    title="12 orders have a negative amount",
    table="events",
    rule="amount >= 0",
    num_rows=1200,
    sample=("-3.5", "<-1>"),
    link="http://127.0.0.1:3000/runs/1",
    detail="quarantined & kept",
)


def mail_settings(box, **more):
    recipients = ("data@shop.example", "night@shop.example")
    return AlertSettings(
        smtp_host="127.0.0.1", smtp_port=box.port, sender="bot@shop.example", recipients=recipients, **more
    )


def test_slack_gets_a_text_and_a_block_that_says_everything(webhook):
    send([ALERT], AlertSettings(slack_webhook=webhook.url))
    (message,) = webhook.received
    assert message["text"] == ALERT.title
    block = message["blocks"][0]["text"]["text"]
    assert block == (
        "*12 orders have a negative amount*\ntable: events\nrule: amount &gt;= 0\nrows: 1,200\n"
        "sample: -3.5, &lt;-1&gt;\ndetail: quarantined &amp; kept\nsee: http://127.0.0.1:3000/runs/1"
    )


def test_slack_is_not_sent_more_than_it_takes():
    long = Alert(title="t", detail="x" * 10_000)
    message = slack_message([long] * 80)
    assert len(message["blocks"]) == SLACK_BLOCKS
    assert max(len(block["text"]["text"]) for block in message["blocks"]) <= 3000
    assert message["blocks"][-1]["text"]["text"] == "and 31 more: see the log"


def test_mail_reaches_every_recipient(mail):
    send([ALERT, Alert(title="second\nBcc: everybody@example")], mail_settings(mail))
    (letter,) = mail.letters
    assert letter.mail_from == "bot@shop.example"
    assert letter.rcpt_tos == ["data@shop.example", "night@shop.example"]
    head, _, body = letter.content.decode().replace("\r\n", "\n").partition("\n\n")
    assert "Subject: 12 orders have a negative amount (and 1 more)" in head
    assert ALERT.text() in body
    assert "everybody" not in head


def test_mail_logs_in_and_a_wrong_password_is_told_without_it(mail):
    send([ALERT], mail_settings(mail, smtp_user="shop", smtp_password="right"))
    assert len(mail.letters) == 1
    with pytest.raises(TransientError, match="SMTPAuthenticationError 535") as caught:
        send([ALERT], mail_settings(mail, smtp_user="shop", smtp_password="hush"))
    assert "hush" not in str(caught.value)
    assert len(mail.letters) == 1


def test_required_encryption_is_never_left_out(mail):
    with pytest.raises(TransientError, match="SMTPNotSupportedError"):
        send([ALERT], mail_settings(mail, starttls=True))
    assert mail.letters == []


def test_one_failing_channel_does_not_stop_the_other(webhook, mail):
    webhook.answer = 500
    with pytest.raises(TransientError, match=r"Slack webhook .* answered 500") as caught:
        send([ALERT], mail_settings(mail, slack_webhook=webhook.url))
    assert len(mail.letters) == 1
    assert "SECRET" not in str(caught.value)

    gone = f"http://127.0.0.1:{free_port()}/SECRET"
    with pytest.raises(
        TransientError, match=r"Slack webhook .*ConnectError; e-mail .*ConnectionRefusedError"
    ):
        send(
            [ALERT],
            AlertSettings(
                slack_webhook=gone,
                smtp_host="127.0.0.1",
                smtp_port=free_port(),
                sender="a@b",
                recipients=("c@d",),
            ),
        )


def test_without_settings_alerts_go_to_the_log(caplog):
    with caplog.at_level(logging.WARNING, logger="orchestration.alerting.channels"):
        send([ALERT], AlertSettings.from_environment({}))
        send([], AlertSettings.from_environment({}))
    (record,) = caplog.records
    assert "12 orders have a negative amount; table: events" in record.getMessage()


def test_settings_come_from_the_environment():
    settings = AlertSettings.from_environment(
        {
            "RECOMMENDER_SLACK_WEBHOOK": " https://hooks.slack.com/services/T/B/SECRET ",
            "RECOMMENDER_SMTP_HOST": "mail.shop.example",
            "RECOMMENDER_SMTP_FROM": "bot@shop.example",
            "RECOMMENDER_SMTP_TO": "a@shop.example, b@shop.example,",
            "RECOMMENDER_SMTP_USER": "bot",
            "RECOMMENDER_SMTP_PASSWORD": "hush",
            "RECOMMENDER_SMTP_STARTTLS": "true",
        }
    )
    assert settings.recipients == ("a@shop.example", "b@shop.example")
    assert (settings.smtp_port, settings.starttls) == (587, True)
    assert "SECRET" not in repr(settings)
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"RECOMMENDER_SMTP_HOST": "mail"}, "set RECOMMENDER_SMTP_FROM and RECOMMENDER_SMTP_TO"),
        ({"RECOMMENDER_SMTP_PORT": "smtp"}, "RECOMMENDER_SMTP_PORT is 'smtp'"),
    ],
)
def test_settings_that_cannot_work_are_refused(environ, message):
    with pytest.raises(SettingError, match=message):
        AlertSettings.from_environment(environ)
