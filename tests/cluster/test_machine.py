"""Clusters do not meet: machines side by side, one whose owner was killed, one that is found again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster import parts, requirements
from tests.cluster.kubectl import eventually
from tests.cluster.machine import Machine, cgroup_roots

OWNER = """
import sys, signal
from pathlib import Path
from tests.cluster.machine import Machine
Machine(Path(sys.argv[1])).start(owned=True)
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Not started; it is gone when the test has ended."""
    if reason := requirements.missing():
        pytest.skip(reason)
    made = Machine(tmp_path / "one")
    yield made
    made.stop()


def cgroups(machine: Machine) -> list[Path]:
    return [path for root in cgroup_roots() if (path := root / machine.cgroup.lstrip("/")).is_dir()]


def test_two_machines_have_networks_and_processes_of_their_own(machine: Machine, tmp_path: Path):
    other = Machine(tmp_path / "two")
    machine.start(owned=True)
    other.start(owned=True)
    try:
        assert machine.address != other.address
        assert machine.cgroup != other.cgroup
        server = machine.process("server", [sys.executable, "-c", "import signal; signal.pause()"])
        server.start()
        assert server.running
        assert [child.pid for child in other.children()] == []
    finally:
        other.stop()
    assert server.running


def test_nothing_is_left_of_a_stopped_machine(machine: Machine):
    machine.start(owned=True)
    assert f"df{machine.id}" in psutil.net_if_addrs()
    assert cgroups(machine) != []
    machine.stop()
    assert f"df{machine.id}" not in psutil.net_if_addrs()
    assert cgroups(machine) == []
    assert not machine.folder.exists()
    assert str(machine.folder) not in Path("/proc/mounts").read_text()


def test_a_machine_goes_with_the_process_that_owned_it_and_can_be_started_again(machine: Machine):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, machine.folder], cwd=parts.ROOT, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    assert machine.running
    owner.kill()
    owner.wait()
    owner.stdout.close()
    eventually("the machine is gone", lambda: not machine.running)
    machine.start(owned=True)
    assert machine.run("hostname").strip() == "dreamforge"


def test_a_machine_that_nobody_owns_is_found_by_others(machine: Machine):
    machine.start(owned=False)
    found = Machine(machine.folder)
    assert found.running
    assert found.address == machine.address
    found.stop()
    assert not machine.running
