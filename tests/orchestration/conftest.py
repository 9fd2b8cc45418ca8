"""What takes alerts: a real HTTP server and a real mail server, in threads of the test."""

import email
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.orchestration.ports import free_port


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def webhook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.received, server.answer = [], 200
    server.url = f"http://127.0.0.1:{server.server_port}/services/T0/SECRET"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Mailbox:
    def __init__(self):
        self.letters = []

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 - the name that aiosmtpd calls
        self.letters.append(envelope)
        return "250 OK"


def letter_text(letter):
    """The body of a letter in a mailbox, decoded."""
    return email.message_from_bytes(letter.content).get_payload(decode=True).decode().replace("\r\n", "\n")


@pytest.fixture
def mail():
    def check(_server, _session, _envelope, _mechanism, data):
        right = data.login == b"shop" and data.password == b"right"
        return AuthResult(success=right, handled=False)

    box = Mailbox()
    controller = Controller(
        box, hostname="127.0.0.1", port=free_port(), authenticator=check, auth_require_tls=False
    )
    controller.start()
    box.port = controller.port
    yield box
    controller.stop()
