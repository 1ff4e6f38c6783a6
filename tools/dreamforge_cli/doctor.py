"""`dreamforge doctor`: what this machine has and lacks, why it matters, how to mend it."""

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import typer

from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.embedded.binaries import find_postgres, find_redis
from dreamforge_cli.exits import JOB_FAILED, WRONG_USAGE, stop
from dreamforge_cli.settings import DEFAULT_CHECKPOINT, CliSettings, UpSettings
from dreamforge_cli.up.backend import installed, missing_libraries
from dreamforge_cli.up.command import NEEDS, DataOption

_OLDEST_PYTHON = (3, 11)
_LITTLE_DISK_BYTES = 2 * 1024**3
_SDXL_DISK_BYTES = 10 * 1024**3


class Verdict(StrEnum):
    """``missing`` stops `dreamforge up`; ``limited`` takes something away from it."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    verdict: Verdict
    found: str
    why: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Machine:
    """What the checks look at."""

    settings: UpSettings
    api_base: str
    data: Path


def doctor(
    data: DataOption = Path(".dreamforge"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what is missing on this machine, why it matters, and how to mend it.

    Exit status 1 when something is missing without which `dreamforge up` can't run. Changes nothing.
    """
    try:
        machine = Machine(load(UpSettings), load(CliSettings).api_base, data.expanduser().absolute())
    except ConfigurationError as error:
        stop(str(error), WRONG_USAGE)
    findings = [check(machine) for check in CHECKS]
    if json:
        console.as_json({"items": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            _show(finding)
    if any(finding.verdict is Verdict.MISSING for finding in findings):
        raise typer.Exit(JOB_FAILED)


def python(machine: Machine) -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info >= _OLDEST_PYTHON:
        return Finding("Python", Verdict.OK, found)
    return Finding("Python", Verdict.MISSING, found, "everything here is written for 3.11 and newer", "install 3.11+")


def libraries(machine: Machine) -> Finding:
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if not absent:
        return Finding("Libraries", Verdict.OK, "all of `up`")
    why = "`dreamforge up` runs API, worker and runner in this environment"
    return Finding(
        "Libraries", Verdict.MISSING, f"without {', '.join(absent)}", why, "pip install 'dreamforge[embedded]'"
    )


def postgres(machine: Machine) -> Finding:
    if machine.settings.database_url:
        return _reachable("PostgreSQL", "DF_DATABASE_URL", machine.settings.database_url, 5432)
    return _found("PostgreSQL", lambda: find_postgres().source, "jobs, events and results are kept in it")


def redis(machine: Machine) -> Finding:
    if machine.settings.redis_url:
        return _reachable("Redis", "DF_REDIS_URL", machine.settings.redis_url, 6379)
    return _found("Redis", lambda: find_redis().source, "work and events travel through it")


def disk(machine: Machine) -> Finding:
    there = next(folder for folder in (machine.data, *machine.data.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1024**3:.1f} GiB free at {there}"
    if not os.access(there, os.W_OK):
        return Finding("Data folder", Verdict.MISSING, f"{there} is not writable", "all data lives there", "--data")
    if free < _LITTLE_DISK_BYTES:
        return Finding("Data folder", Verdict.LIMITED, found, "a full disk fails jobs", "free some space")
    return Finding("Data folder", Verdict.OK, found)


def sdxl(machine: Machine) -> Finding:
    absent = missing_libraries()
    if not absent:
        return Finding("SDXL libraries", Verdict.OK, "torch, diffusers and what they need")
    why = "without them the sketch backend draws instead, which is no diffusion model"
    free = shutil.disk_usage(Path(sys.prefix)).free
    space = "" if free > _SDXL_DISK_BYTES else " (needs about 10 GiB of disk, more than is free)"
    mend = f"pip install 'dreamforge[sdxl]'{space}"
    return Finding("SDXL libraries", Verdict.LIMITED, f"without {', '.join(absent)}", why, mend)


def checkpoint(machine: Machine) -> Finding:
    path = (machine.settings.generate_model_path or DEFAULT_CHECKPOINT).expanduser().absolute()
    if path.is_file():
        return Finding("Checkpoint", Verdict.OK, f"{path} ({path.stat().st_size / 1024**3:.2f} GiB)")
    root = machine.settings.models_root or machine.data / "models"
    if models := installed(root.expanduser()):
        return Finding("Checkpoint", Verdict.OK, f"{', '.join(models)} in {root}")
    must = machine.settings.runner_backend is BackendMode.SDXL
    why = "`up` refuses to start" if must else "the sketch backend draws instead, which is no diffusion model"
    mend = "dreamforge model download REF (docs/models.md), or name a file in DF_GENERATE_MODEL_PATH or --model"
    found = f"no model in {root}, no file {path}"
    return Finding("Checkpoint", Verdict.MISSING if must else Verdict.LIMITED, found, why, mend)


def gpu(machine: Machine) -> Finding:
    why, mend = "SDXL on a CPU takes minutes an image instead of seconds", "an NVIDIA GPU with its driver"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", Verdict.LIMITED, "no nvidia-smi on PATH", why, mend)
    asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("GPU", Verdict.LIMITED, f"nvidia-smi does not run: {error}", why, mend)
    names = "; ".join(done.stdout.split("\n")).strip("; ")
    if done.returncode == 0 and names:
        return Finding("GPU", Verdict.OK, names)
    return Finding("GPU", Verdict.LIMITED, f"nvidia-smi finds none: {(done.stdout + done.stderr).strip()}", why, mend)


def server(machine: Machine) -> Finding:
    """Not a fault either way: `up` may not have been started yet."""
    try:
        answer = httpx.get(f"{machine.api_base.rstrip('/')}/readyz", timeout=3)
    except httpx.HTTPError:
        return Finding("Server", Verdict.OK, f"none at {machine.api_base}; `dreamforge up` starts one")
    if answer.status_code == httpx.codes.OK:
        return Finding("Server", Verdict.OK, f"ready at {machine.api_base}")
    why = "jobs can't be taken now"
    return Finding("Server", Verdict.LIMITED, f"{machine.api_base}: {answer.text[:300]}", why, "see its logs")


CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    python,
    libraries,
    postgres,
    redis,
    disk,
    sdxl,
    checkpoint,
    gpu,
    server,
)


def _found(name: str, find: Callable[[], str], why: str) -> Finding:
    try:
        return Finding(name, Verdict.OK, find())
    except ConfigurationError as error:
        return Finding(name, Verdict.MISSING, "none", why, str(error))


def _reachable(name: str, variable: str, url: str, default_port: int) -> Finding:
    """A TCP connection is all that is tried: no password leaves this process."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or default_port
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        found = f"{variable}: nothing answers at {host}:{port} ({error.strerror or error})"
        return Finding(name, Verdict.MISSING, found, "`dreamforge up` uses it", f"start it, or unset {variable}")
    return Finding(name, Verdict.OK, f"{variable}: {host}:{port} answers")


def _show(finding: Finding) -> None:
    console.results.print(f"{finding.verdict:<8} {finding.name}: {console.harmless(finding.found)}")
    if finding.why:
        console.results.print(f"{'':<8}   why it matters: {finding.why}")
    if finding.mend:
        console.results.print(f"{'':<8}   how to mend it: {console.harmless(finding.mend)}")
