"""PostgreSQL as the rest of the system sees it: the address of each database, while a server is there.

Either the embedded server of `orchestration.local.postgres_server`, where each database belongs to a role of
its own, which can connect to no other; or a server of the user's own (RECOMMENDER_POSTGRES_URL), which is
never started nor stopped from here, with the user of that address.
"""

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg2
from psycopg2 import errors, sql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from expectations.errors import ServiceError, SettingError, TransientError
from expectations.storage.atomic import write_text
from expectations.storage.locks import locked
from orchestration.home import Home
from orchestration.local.postgres_server import LOCK_SECONDS, USER, Server
from orchestration.local.processes import is_alive

DATABASES = ("dagster", "ledger")
DRIVER = "postgresql+psycopg2"
"""SQLAlchemy takes a plain `postgresql://` for psycopg 3, on which dagster-postgres fails."""


@dataclass(frozen=True, kw_only=True)
class PostgresSettings:
    """Where PostgreSQL is.

    Attributes:
        url: a server of the user's own; None: the embedded one.
        port: port of the embedded server on 127.0.0.1; None: a free one, which the home keeps.
    """

    url: URL | None = None
    port: int | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "PostgresSettings":
        """Read RECOMMENDER_POSTGRES_URL and RECOMMENDER_POSTGRES_PORT.

        Raises:
            SettingError: the port is no port, the address none of PostgreSQL's.
        """
        text = environ.get("RECOMMENDER_POSTGRES_PORT")
        if text and (not text.isdigit() or not 0 < int(text) < 65_536):
            raise SettingError(f"RECOMMENDER_POSTGRES_PORT is {text!r}; give a number from 1 to 65535")
        address = environ.get("RECOMMENDER_POSTGRES_URL")
        return cls(url=read_address(address) if address else None, port=int(text) if text else None)


def read_address(text: str) -> URL:
    """The URL of a PostgreSQL server; its `repr` shows no password.

    Raises:
        SettingError: it cannot be read.
    """
    with contextlib.suppress(ArgumentError, ValueError):
        if (url := make_url(text)).get_backend_name() in ("postgresql", "postgres"):
            return url
    raise SettingError(
        "RECOMMENDER_POSTGRES_URL is no PostgreSQL address; "
        "write it as postgresql://user:password@host:5432/postgres"
    )


def database_url(address: URL, driver: str = DRIVER) -> str:
    """The URL of a database, password and all: never print it.

    Args:
        address: its address.
        driver: SQLAlchemy's name of dialect and driver; `postgresql` for libpq and psycopg.
    """
    url = address.set(drivername=driver, database=address.database or "postgres")
    return url.render_as_string(hide_password=False)


@contextlib.contextmanager
def _connected(address: URL) -> "Iterator[psycopg2.extensions.cursor]":
    """A cursor whose statements take effect one by one.

    Raises:
        ServiceError: the server does not answer, or lets us not in.
    """
    try:
        connection = psycopg2.connect(database_url(address, driver="postgresql"), connect_timeout=10)
    except psycopg2.OperationalError as error:
        raise ServiceError(
            f"PostgreSQL does not answer ({str(error).strip()}); start it, "
            "or correct RECOMMENDER_POSTGRES_URL"
        ) from None
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        yield cursor


def create_databases(server: URL) -> dict[str, URL]:
    """Create the databases that are not there yet, as the user of that address; the address of each.

    Raises:
        ServiceError: the server does not answer, or its user may not create databases.
    """
    try:
        with _connected(server) as cursor:
            cursor.execute("SELECT datname FROM pg_database")
            there = {row[0] for row in cursor.fetchall()}
            for name in (name for name in DATABASES if name not in there):
                # two processes may come here at the same time
                with contextlib.suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except errors.InsufficientPrivilege:
        raise ServiceError(
            f"the user of RECOMMENDER_POSTGRES_URL may not create databases; create {', '.join(DATABASES)} "
            "on that server as its administrator"
        ) from None
    return {name: server.set(database=name) for name in DATABASES}


def superuser_address(server: Server) -> URL:
    """The address of the embedded server for its superuser: to set it up, not to work with."""
    return URL.create(
        DRIVER, USER, server.password(), "127.0.0.1", server.listening_port(), database="postgres"
    )


def embedded_databases(server: Server) -> dict[str, URL]:
    """Give each database of the running embedded server a role of its own; the address of each.

    Raises:
        ServiceError: the server does not answer.
        TransientError: another process was setting it up for too long.
    """
    superuser, addresses = superuser_address(server), {}
    with locked(server.lock, timeout=LOCK_SECONDS):
        create_databases(superuser)
        for name in DATABASES:
            password = server.home.postgres / f"{name}.password"
            if not password.exists():
                write_text(password, secrets.token_urlsafe(24) + "\n")
            secret = password.read_text(encoding="utf-8").strip()
            _give_to_role(superuser, name, secret)
            addresses[name] = superuser.set(username=name, password=secret, database=name)
    return addresses


def _give_to_role(superuser: URL, name: str, password: str) -> None:
    """Give a database, with the tables that the superuser made in it before, to the role of the same name."""
    role = sql.Identifier(name)
    with _connected(superuser.set(database=name)) as cursor:
        with contextlib.suppress(errors.DuplicateObject):
            cursor.execute(sql.SQL("CREATE ROLE {}").format(role))
        cursor.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD %s").format(role), [password])
        for database in (role, sql.Identifier("postgres"), sql.Identifier("template1")):
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(role, role))
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p', 'v', 'm') AND relowner <> %s::regrole",
            [name],
        )
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("ALTER TABLE public.{} OWNER TO {}").format(sql.Identifier(table), role))


@contextlib.contextmanager
def running(home: Home, settings: PostgresSettings) -> Iterator[dict[str, URL]]:
    """The address of each of `DATABASES`, while the block runs.

    The embedded server is started if it does not run. It is stopped after the block, unless another
    process is still inside such a block.

    Raises:
        ServiceError: it does not start or does not answer.
        TransientError: another process was starting or stopping it for too long.
    """
    if settings.url:
        yield create_databases(settings.url)
        return
    server = Server(home=home, port=settings.port)
    try:
        with locked(server.users_lock, timeout=LOCK_SECONDS, shared=True):
            server.start()
            yield embedded_databases(server)
    finally:
        with contextlib.suppress(TransientError):
            server.release()


def hold(home: Home, settings: PostgresSettings) -> None:
    """Keep the embedded server running until this process is stopped: what `up` does, by supervisord.

    Raises:
        ServiceError: the server does not start, or has ended; supervisord then starts us again.
    """
    server = Server(home=home, port=settings.port)
    with running(home, settings):
        process = server.process()
        while process and is_alive(process):
            time.sleep(0.5)
        raise ServiceError(f"PostgreSQL has ended; see {server.log}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    hold(Home.from_environment(os.environ), PostgresSettings(port=int(sys.argv[1])))
