"""A machine within this one, for a cluster to run in: namespaces that end, with all in them, when one process does.

Two clusters on one host would share ports, iptables rules, the kubelet's cgroups and its folder of device plugins.
Here each has its own, and what is left on the host when it ends, a folder and empty cgroups, ``stop`` removes.
"""

import fcntl
import hashlib
import ipaddress
import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tests.cluster import commands, parts
from tests.cluster.process import Process

_NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts")
_CGROUPS = Path("/sys/fs/cgroup")
_BOOT_SECONDS = 10.0
_END_SECONDS = 20.0


@dataclass(frozen=True)
class Record:
    """What ``machine.json`` remembers of a machine that was started."""

    pid: int
    created: float
    address: str
    host_address: str


class Machine:
    """``folder`` holds its disks, logs and record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.id = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        self.cgroup = f"/dreamforge-{self.id}"
        self._record = self.folder / "machine.json"
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._init() is not None

    @property
    def address(self) -> str:
        """Of the machine, as the host and its own pods reach it."""
        return self._read().address

    @property
    def host_address(self) -> str:
        """Of the host, as pods reach it."""
        return self._read().host_address

    def start(self, *, owned: bool) -> None:
        """Boot it; an ``owned`` one ends with the process that calls this, whatever ends it."""
        self.stop()  # what a killed one left behind
        for name in ("logs", "parts", "disk"):
            (self.folder / name).mkdir(parents=True)
        os.mkfifo(self.folder / "requests")
        _make_cgroups(self.cgroup)
        with (self.folder / "logs" / "init.log").open("ab") as log:
            holder = self._holder = subprocess.Popen(
                [
                    *(("setpriv", "--pdeathsig", "KILL") if owned else ()),
                    *("unshare", *_NAMESPACES, "--fork", "--kill-child", "--mount-proc"),
                    *("bash", parts.MACHINE / "init.sh", self.folder, parts.BIN),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_for_boot(holder)
        with _allocation():
            network = _free_network(self.id)
            self._write(holder.pid, network)
            self._connect(network)

    def stop(self) -> None:
        """End it with everything in it, and remove what is left."""
        if init := self._init():
            holder = init.parent()
            (holder or init).kill()
            psutil.wait_procs([init, *([holder] if holder else [])], timeout=_END_SECONDS)
        if self._holder:
            self._holder.kill()  # also one that failed to boot
            self._holder.wait()
        _wait_until_unplugged(f"df{self.id}")
        _remove_cgroups(self.cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str | Path, stdin: str | None = None) -> str:
        """The stdout of a command inside."""
        init = self._init()
        assert init is not None, "start it first"
        inside = ["nsenter", "--target", str(init.pid), *_NAMESPACES, "--", *command]
        done = subprocess.run(inside, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(map(str, command))}: {done.stderr.strip()}")
        return done.stdout

    def process(self, name: str, command: Sequence[str | Path], **environment: str) -> "MachineProcess":
        """A server inside, not started yet; it may also have been started by an earlier caller."""
        return MachineProcess(self, name, command, environment)

    def children(self) -> list[psutil.Process]:
        init = self._init()
        return init.children() if init else []

    def request(self, name: str) -> None:
        """Let the machine's first process run the script of this name."""
        with (self.folder / "requests").open("a") as requests:
            requests.write(f"{name}\n")

    def _wait_for_boot(self, holder: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while not (self.folder / "booted").exists():
            if holder.poll() is not None or time.monotonic() > deadline:
                holder.kill()
                raise RuntimeError(f"the machine did not boot: {(self.folder / 'logs' / 'init.log').read_text()}")
            time.sleep(0.02)

    def _connect(self, network: ipaddress.IPv4Network) -> None:
        """A cable to the host; pods leave with the machine's address, so that the host finds the way back."""
        init = self._init()
        assert init is not None
        cable, host, own = f"df{self.id}", f"{network[1]}/{network.prefixlen}", f"{network[2]}/{network.prefixlen}"
        _host("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(init.pid))
        _host("ip", "address", "add", host, "dev", cable)
        _host("ip", "link", "set", cable, "up")
        self.run("ip", "address", "add", own, "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", str(network[1]))
        self.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", commands.PODS, "-o", "eth0", "-j", "MASQUERADE")

    def _write(self, pid: int, network: ipaddress.IPv4Network) -> None:
        record = Record(pid, psutil.Process(pid).create_time(), str(network[2]), str(network[1]))
        self._record.write_text(json.dumps(asdict(record)))

    def _read(self) -> Record:
        return Record(**json.loads(self._record.read_text()))

    def _init(self) -> psutil.Process | None:
        """The first process inside, as the host sees it."""
        if not self._record.exists():
            return None
        record = self._read()
        try:
            holder = psutil.Process(record.pid)
            if holder.create_time() != record.created:
                return None  # the number was given to another process
            return next(iter(holder.children()), None)
        except psutil.NoSuchProcess:
            return None


class MachineProcess(Process):
    """A server that runs inside and outlives whoever asked for it; it is found again by its command line."""

    def __init__(
        self, machine: Machine, name: str, command: Sequence[str | Path], environment: dict[str, str]
    ) -> None:
        super().__init__(name, machine.folder / "logs" / f"{name}.log")
        self._machine = machine
        self._command = [str(word) for word in command]
        self._environment = environment

    def start(self) -> None:
        """Start it and return when it is seen."""
        words = ["env", *(f"{key}={value}" for key, value in self._environment.items()), *self._command]
        script = self._machine.folder / "parts" / self.name
        script.write_text(f"exec {shlex.join(words)}\n")
        self._machine.request(self.name)
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self.running:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self.last_words()}")
            time.sleep(0.02)

    def _find(self) -> psutil.Process | None:
        for child in self._machine.children():
            try:
                if child.cmdline() == self._command:
                    return child
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return None


def _host(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")


@contextmanager
def _allocation() -> Iterator[None]:
    """One at a time on this host: between seeing that a network is free and taking it."""
    with (Path(tempfile.gettempdir()) / "dreamforge-cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_network(seed: str) -> ipaddress.IPv4Network:
    """The same for one machine each time, unless an address of the host lies in it."""
    taken = [
        ipaddress.ip_address(address.address)
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    ]
    first = int(seed, 16)
    for offset in range(256):
        network = ipaddress.IPv4Network(f"10.222.{(first + offset) % 256}.0/24")
        if not any(address in network for address in taken):
            return network
    raise RuntimeError("every network in 10.222.0.0/16 is taken")


def _wait_until_unplugged(cable: str) -> None:
    """The kernel takes a dead network apart in its own time; the next machine of this folder has the same cable."""
    deadline = time.monotonic() + _END_SECONDS
    while cable in psutil.net_if_addrs() and time.monotonic() < deadline:
        time.sleep(0.02)


def cgroup_roots() -> list[Path]:
    """One for each controller under cgroup v1, one in all under v2."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()]


def _make_cgroups(name: str) -> None:
    """Two kubelets with one root would end each other's pods as orphans."""
    with suppress(OSError):  # cgroup v2: children get the controllers that their parent hands down
        (_CGROUPS / "cgroup.subtree_control").write_text("+cpu +cpuset +memory +pids")
    for root in cgroup_roots():
        (root / name.lstrip("/")).mkdir(exist_ok=True)


def _remove_cgroups(name: str) -> None:
    """From the leaves up, each as a folder; a while goes by before the kernel has buried the last process."""
    left = [root / name.lstrip("/") for root in cgroup_roots()]
    deadline = time.monotonic() + _END_SECONDS
    while (left := [root for root in left if root.exists()]) and time.monotonic() < deadline:
        for root in left:
            for folder, _, _ in os.walk(root, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
        time.sleep(0.05)
