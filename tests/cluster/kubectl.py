"""A typed kubectl for tests: objects in, objects out, and waiting with a deadline."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster import parts

Object = dict[str, Any]
T = TypeVar("T")

_CALL_SECONDS = 60.0
#: For what a quiet machine does in seconds.
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.1


class Refused(Exception):
    """kubectl ended with an error; ``str()`` is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with its cluster and namespace filled in."""

    kubeconfig: Path
    namespace: str = "default"
    """Empty: where each object says itself."""
    user: str | None = None
    """Whom the admin impersonates, e.g. ``system:serviceaccount:ns:name``."""

    def within(self, namespace: str) -> "Kubectl":
        return replace(self, namespace=namespace)

    def as_user(self, user: str) -> "Kubectl":
        return replace(self, user=user)

    def __call__(self, *arguments: str | Path, stdin: str | None = None, seconds: float = _CALL_SECONDS) -> str:
        """Its stdout; ``Refused`` with its stderr when it fails."""
        done = self.attempt(*arguments, stdin=stdin, seconds=seconds)
        if done.returncode:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def attempt(
        self, *arguments: str | Path, stdin: str | None = None, seconds: float = _CALL_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """As it ended, for tests that look at warnings (stderr) or at the exit status."""
        return subprocess.run(
            [*self.command(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def command(self) -> list[str | Path]:
        """The program and its first arguments, for processes that run on (``kubectl get -w``, ``port-forward``)."""
        program = parts.kubectl()
        assert program is not None, "ask control_plane.available() first"
        user = ["--as", self.user] if self.user else []
        # What it knows of one API server must not outlive it: the next may have the same address.
        cache = self.kubeconfig.parent / "kubectl-cache"
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return [program, "--kubeconfig", self.kubeconfig, "--cache-dir", cache, *namespace, *user]

    def apply(self, *objects: Object | Path, server_side: bool = False, dry_run: bool = False) -> None:
        """Objects, or files of them."""
        flags = [*(["--server-side"] if server_side else []), *(["--dry-run=server"] if dry_run else [])]
        for path in objects:
            if isinstance(path, Path):
                self("apply", *flags, "-f", path)
        plain = [item for item in objects if not isinstance(item, Path)]
        if plain:
            self("apply", *flags, "-f", "-", stdin=_as_list(plain))

    def create(self, item: Object) -> Object:
        """What the API server made of it, defaults filled in."""
        made: Object = json.loads(self("create", "-o", "json", "-f", "-", stdin=json.dumps(item)))
        return made

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def find(self, kind: str, name: str) -> Object | None:
        """``None`` when there is none."""
        text = self("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> Sequence[Object]:
        found: Sequence[Object] = json.loads(self("get", kind, "-o", "json", "-l", selector))["items"]
        return found

    def delete(self, kind: str, name: str, *, wait: bool = False) -> None:
        self("delete", kind, name, f"--wait={str(wait).lower()}", "--ignore-not-found")

    def patch(self, kind: str, name: str, change: Mapping[str, Any], *, subresource: str = "") -> None:
        """A merge patch."""
        at = ["--subresource", subresource] if subresource else []
        self("patch", kind, name, "--type=merge", "-p", json.dumps(change), *at)

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """``http://127.0.0.1:N``: leads to a port of a pod or service (``svc/api``) while the context is open."""
        command = [*self.command(), "port-forward", target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            try:
                assert child.stdout is not None
                line = child.stdout.readline()
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) ", line)
                if found is None:
                    raise Refused(line.strip())
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                child.kill()

    def wait_condition(self, kind: str, name: str, condition: str, *, timeout: float = PATIENCE_SECONDS) -> None:
        """``kubectl wait``, as people use it."""
        told = (f"--for=condition={condition}", f"--timeout={timeout:.0f}s")
        self("wait", f"{kind}/{name}", *told, seconds=timeout + _CALL_SECONDS)


def eventually(what: str, look: Callable[[], T | None], *, timeout: float = PATIENCE_SECONDS) -> T:
    """The first answer of ``look`` that is neither ``None`` nor false; while kubectl is refused, it waits on."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = look()
            if last:
                return last
        except (Refused, subprocess.TimeoutExpired) as error:
            last = error
        time.sleep(_POLL_SECONDS)
    raise AssertionError(f"{what}: not within {timeout:.0f} s; last seen: {last!r}")


def condition(item: Object, kind: str) -> Object | None:
    """One condition of an object's status by its type."""
    found = (entry for entry in item.get("status", {}).get("conditions", []) if entry["type"] == kind)
    return next(found, None)


def _as_list(items: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})
