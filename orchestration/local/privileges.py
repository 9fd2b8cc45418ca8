"""PostgreSQL refuses to run as root: whom it runs as then, and how that user reaches our files.

The home or the virtual environment may lie in a folder that is closed to other users (/root, a private
temporary folder). Then the server gets the one capability that passes closed folders, by `setpriv`.
Its effective user is still not root, which is what PostgreSQL looks at.
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


@dataclass(frozen=True, kw_only=True)
class Account:
    """An operating system user that a program runs as, by its numbers."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Give one file or folder to this user, where it is not theirs already."""
        if path.stat().st_uid != self.uid:
            os.chown(path, self.uid, self.gid)

    def command(self, argv: Sequence[str], *, reach: Sequence[Path]) -> list[str]:
        """The command line that runs a program as this user.

        Args:
            argv: the program and its arguments.
            reach: files and folders that the program must be able to open.

        Raises:
            ServiceError: this user cannot open one of them, and may not be given the right to.
        """
        if self.uid == os.geteuid():
            return list(argv)
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise ServiceError(
                "PostgreSQL must not run as root and `setpriv` (package util-linux) is not installed; "
                "install it, run as an ordinary user, or set RECOMMENDER_POSTGRES_URL to a server of yours"
            )
        plain = [setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        for switch in (plain, [*plain, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]):
            if all(_opens(switch, path) for path in reach):
                return [*switch, *argv]
        places = ", ".join(str(path) for path in reach)
        raise ServiceError(
            f"PostgreSQL must run as user {self.uid}, who cannot open all of {places}, and this machine "
            "grants no CAP_DAC_OVERRIDE; put RECOMMENDER_HOME and the virtual environment in folders that "
            "all users may pass, run as an ordinary user, or set RECOMMENDER_POSTGRES_URL to your own server"
        )


def _opens(switch: Sequence[str], path: Path) -> bool:
    # really opened: `test -r` asks the kernel to leave capabilities out of account
    attempt = ["ls", "-d", f"{path}/."] if path.is_dir() else ["head", "-c", "1", str(path)]
    return not subprocess.run([*switch, *attempt], cwd="/", capture_output=True, check=False).returncode


def server_account(data: Path) -> Account:
    """Whom the server runs as: the owner of its data folder; at first us, or for root an ordinary user.

    Raises:
        ServiceError: the data belong to another user, or root finds no ordinary user.
    """
    us = os.geteuid()
    owner = data.stat().st_uid if data.exists() else None
    if us != 0:
        if owner not in (None, us):
            raise ServiceError(
                f"{data} belongs to user {owner}, we are user {us}; run as that user or as root, "
                "or choose another RECOMMENDER_HOME"
            )
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
