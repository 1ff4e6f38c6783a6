"""etcd and kube-apiserver, with or without the built-in controllers, on 127.0.0.1: no root, no node, no pods."""

import json
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster import commands, parts
from tests.cluster.process import ChildProcess, Process

_START_SECONDS = 60.0


class ControlPlane:
    """A real API server that keeps its address while tests stop, freeze and start its processes.

    Without controllers nothing acts on what is stored: no Job makes pods, no owner's end removes what it owned, a
    deleted namespace stays ``Terminating``. With them a Job has its pods, which wait for a node that never comes.
    """

    def __init__(self, folder: Path, *, controllers: bool = False, flags: tuple[str, ...] = ()) -> None:
        self.folder = folder.resolve()
        self.at = commands.Addresses("127.0.0.1", *_free_ports(3))
        self.kubeconfig = self.folder / "kubeconfig"
        self.etcd = self._process("etcd", commands.etcd(self.folder, self.at))
        # Pods may be made without a service account when nobody makes service accounts.
        flags = flags if controllers else ("--disable-admission-plugins=ServiceAccount", *flags)
        self.api_server = self._process("kube-apiserver", commands.api_server(self.folder, self.at, *flags))
        self.controllers = (
            self._process("kube-controller-manager", commands.controller_manager(self.folder, self.kubeconfig))
            if controllers
            else None
        )

    def start(self) -> None:
        """Start all of it and return when the API server is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prepare(self.folder, self.at, self.kubeconfig)
        try:
            self.etcd.start()
            self.api_server.start()
            self.wait_until_ready()
            if self.controllers:
                self.controllers.start()
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        """Until the API server is, after a test has stopped it and started it again."""
        wait_until_ready(self.at, self.folder, self.api_server)

    def stop(self) -> None:
        """End all of it; the store is left in the folder."""
        for process in (self.controllers, self.api_server, self.etcd):
            if process:
                process.stop()

    def _process(self, name: str, command: commands.Command) -> ChildProcess:
        return ChildProcess(name, command, self.folder / f"{name}.log")


def prepare(folder: Path, at: commands.Addresses, kubeconfig: Path) -> None:
    """What the programs read when they start: accounts, a key, and the way in for clients."""
    if not commands.signing_key(folder).exists():
        subprocess.run(
            ["openssl", "genrsa", "-out", commands.signing_key(folder), "2048"], check=True, capture_output=True
        )
    token = secrets.token_hex(16)
    commands.tokens(folder).write_text(f'{token},{commands.ADMIN},{commands.ADMIN},"system:masters"\n')
    cluster = {"server": at.api, "certificate-authority": str(commands.certificate(folder))}
    name = "dreamforge"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": name, "cluster": cluster}],
                "users": [{"name": commands.ADMIN, "user": {"token": token}}],
                "contexts": [{"name": name, "context": {"cluster": name, "user": commands.ADMIN}}],
                "current-context": name,
            },
            indent=1,
        )
    )
    kubeconfig.chmod(0o600)


def wait_until_ready(at: commands.Addresses, folder: Path, process: Process) -> None:
    """Until ``/readyz`` says so; its certificate is made while it starts."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.running:
        try:
            trusted = ssl.create_default_context(cafile=commands.certificate(folder))
            with urllib.request.urlopen(f"{at.api}/readyz", timeout=2, context=trusted) as answer:
                if answer.status == 200:
                    return
        except (OSError, ValueError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.name} is not ready:\n{process.last_words()}")


def available(*, controllers: bool = False) -> str | None:
    """Why no control plane can be started here, or ``None``."""
    wanted = (*parts.API_SERVER, *(parts.CONTROLLERS if controllers else ()))
    if reason := parts.not_built(wanted):
        return reason
    if parts.kubectl() is None:
        return "no kubectl: put one on PATH, or run `make cluster-build`"
    return None if shutil.which("openssl") else "openssl is not installed"


def _free_ports(count: int) -> list[int]:
    """Bound all at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
