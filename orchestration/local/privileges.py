"""PostgreSQL refuses to run as root: whom it runs as then, without any capability.

The home or the virtual environment may lie in a folder that is closed to other users (/root, a private
temporary folder). The server reaches its data all the same: it starts in their folder, which it owns, and
names them by `HERE`, a way on which no folder above them is passed. Of programs behind a closed folder it
runs a copy (`orchestration.local.postgres_server`).
"""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expectations.errors import ServiceError

CANDIDATES = ("postgres", "nobody")
HERE = Path("/proc/self/cwd")
"""The folder that a process of Linux works in; only Linux has `setpriv`."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """An operating system user that a program runs as, by its numbers."""

    uid: int
    gid: int

    @property
    def is_ours(self) -> bool:
        """Whether we are this user."""
        return self.uid == os.geteuid()

    def own(self, path: Path) -> None:
        """Give one file or folder to this user, where it is not theirs already."""
        if path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program as this user, who can gain no privilege.

        Raises:
            ServiceError: we are root and have no `setpriv`.
        """
        if self.is_ours:
            return list(argv)
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ServiceError(
                "PostgreSQL must not run as root and `setpriv` (package util-linux) is not installed; "
                "install it, run as an ordinary user, or set RECOMMENDER_POSTGRES_URL to a server of yours"
            )
        switch = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        return [setpriv, *switch, "--inh-caps=-all", "--no-new-privs", *argv]

    def runs(self, program: Path) -> bool:
        """Whether this user can start a program, by asking for its version."""
        argv = self.command([str(program), "--version"])
        return not subprocess.run(argv, cwd="/", capture_output=True, check=False).returncode


def server_account(data: Path) -> Account:
    """Whom the server runs as: the owner of its data folder; at first us, or for root an ordinary user.

    Raises:
        ServiceError: the data belong to another user, or root finds no ordinary user.
    """
    us = os.geteuid()
    remedy = f"we are user {us}; run as that user or as root, or choose another RECOMMENDER_HOME"
    try:
        owner = data.stat().st_uid if data.exists() else None
    except PermissionError:
        raise ServiceError(f"{data} lies in a folder that another user has closed, {remedy}") from None
    if us != 0:
        if owner not in (None, us):
            raise ServiceError(f"{data} belongs to user {owner}, {remedy}")
        return Account(uid=us, gid=os.getegid())
    if owner:
        return Account(uid=owner, gid=data.stat().st_gid)
    for name in CANDIDATES:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServiceError(
        "PostgreSQL must not run as root and there is no user `postgres` or `nobody`; make one with "
        "`useradd --system postgres`, or run as an ordinary user"
    )
