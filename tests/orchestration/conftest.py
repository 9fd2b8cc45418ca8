"""A home and its database, programs of a test, and what takes alerts: a real HTTP and a real mail server."""

import email
import json
import socket
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from orchestration.home import Home
from orchestration.local.postgres import PostgresSettings
from orchestration.local.processes import free_port
from tests.features import small_shop

AWKWARD = "home [1] #2 ;3 100%"
"""A folder's name that others would read as a pattern, a comment or a format; it is taken literally."""

PRELUDE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
import psycopg2
from orchestration.home import Home
from orchestration.local import cli
from orchestration.local.job_run import run_job
from orchestration.local.postgres import PostgresSettings, database_url, running
from orchestration.local.postgres_server import Server
home, postgres = Home(root=Path({root!r})), PostgresSettings(port={port})
"""


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path / AWKWARD)


@pytest.fixture
def postgres():
    return PostgresSettings(port=free_port())


@pytest.fixture
def program(home, postgres):
    """The command line of a program that knows the test's `home` and `postgres`."""
    prelude = PRELUDE.format(root=str(home.root), port=postgres.port)
    return lambda code: [sys.executable, "-c", prelude + textwrap.dedent(code)]


@pytest.fixture
def outside():
    """A proxy that answers nothing: who reached for the network, one line each."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(None)

        def listen():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(1)
                with connection:
                    callers.append(connection.recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def webhook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    server.received, server.status = [], 200
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


BROKEN_SHOP = """
name = "broken_shop"
[tables.items]
location = "items.parquet"
[tables.exposures]
location = "exposures.parquet"
"""


def write_broken_shop(folder: Path) -> Path:
    """A shop of which every third exposure names an item that it does not have; returns its source.toml."""
    tables = small_shop.frames()
    exposures = tables["exposures"]
    exposures["item_id"] = exposures["item_id"].where(exposures.index % 3 > 0, "c99")
    for name in ("items", "exposures"):
        tables[name].to_parquet(folder / f"{name}.parquet")
    (folder / "source.toml").write_text(BROKEN_SHOP)
    return folder / "source.toml"
