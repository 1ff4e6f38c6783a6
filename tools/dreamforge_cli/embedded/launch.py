"""How a child process is started: which user it runs as, and that it ends when its parent does.

PostgreSQL refuses to run as root, so root starts it as an unprivileged user. `setpriv` does that and keeps one
capability, CAP_DAC_OVERRIDE, so that parent folders with mode 0700 need no opening up. The same tool sets the
parent-death signal on Linux: a parent killed with SIGKILL leaves no server behind.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypedDict

from dreamforge.errors import ConfigurationError

_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class User:
    """A system user."""

    name: str
    uid: int
    gid: int


class Identity(TypedDict, total=False):
    """The keyword arguments of ``subprocess.Popen`` that change the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Launch:
    """What to hand to ``subprocess.Popen``: a command, and keyword arguments for the identity."""

    argv: list[str]
    identity: Identity = field(default_factory=lambda: Identity())


def unprivileged_user() -> User | None:
    """The user a server must run as: ``None`` (this one) unless this process is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known and known[name].pw_uid != 0:
            return User(name, known[name].pw_uid, known[name].pw_gid)
    raise ConfigurationError(
        "PostgreSQL refuses to run as root and this machine has no user 'postgres' or 'nobody' to run it as; "
        "run as another user or set DF_DATABASE_URL"
    )


def launch(
    argv: Sequence[str | Path],
    *,
    user: User | None = None,
    death_signal: signal.Signals | None = None,
    needs: Path | None = None,
) -> Launch:
    """Prepare ``argv`` to run as ``user`` and to get ``death_signal`` when its parent dies (Linux).

    ``needs`` is a folder the child must reach; it matters only where `setpriv` can't keep CAP_DAC_OVERRIDE.
    """
    command = [str(part) for part in argv]
    tied = ["--pdeathsig", death_signal.name.removeprefix("SIG")] if death_signal else []
    if user is None:
        return Launch([*_setpriv(), *tied, "--", *command] if tied and _works() else command)
    if _works(user):
        return Launch([*_setpriv(user), *tied, "--", *command])
    if needs is not None:
        _must_reach(needs, user)
    return Launch(command, Identity(user=user.uid, group=user.gid, extra_groups=[]))


def _setpriv(user: User | None = None) -> list[str]:
    binary = shutil.which("setpriv") or "setpriv"
    if user is None:
        return [binary]
    identity = ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
    return [binary, *identity, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]


@cache
def _works(user: User | None = None) -> bool:
    """Whether `setpriv` is here and may do it: containers can lack the capabilities, BusyBox the options."""
    if shutil.which("setpriv") is None:
        return False
    probe = [*_setpriv(user), "--pdeathsig", "TERM", "--", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _must_reach(folder: Path, user: User) -> None:
    for parent in folder.resolve().parents:
        status = parent.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if not status.st_mode >> shift & 1:
            raise ConfigurationError(
                f"PostgreSQL runs as user {user.name!r} here, who can't enter {parent}; "
                "choose a data folder that user can reach (--data), run as another user, or set DF_DATABASE_URL"
            )
