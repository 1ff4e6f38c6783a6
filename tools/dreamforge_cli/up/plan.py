"""Which processes make the stack, and the environment of each: data from data."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamforge.errors import ConfigurationError
from dreamforge_cli.embedded.launch import Launch, launch
from dreamforge_cli.embedded.server import EmbeddedServer
from dreamforge_cli.settings import UpSettings
from dreamforge_cli.up.backend import Choice
from dreamforge_cli.up.folder import DataFolder
from dreamforge_cli.up.process import Spec

#: Who stops together, and by when after the beginning of the end (s): runners first, they still have events to hand
#: over; then worker and API; then the servers under them. The last stays below the 10 s that `up` promises.
STOP_ORDER = (
    (("runner",), 4.5),
    (("worker", "api", "migrate"), 7.5),
    (("redis", "postgres"), 9.5),
)


@dataclass(frozen=True)
class Address:
    """Where the API listens, and how people on this machine reach it."""

    host: str
    port: int

    @property
    def url(self) -> str:
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - recognised, not bound
        host = everywhere.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"


def server(embedded: EmbeddedServer) -> Spec:
    """A PostgreSQL or Redis of our own."""
    return Spec(
        embedded.name,
        embedded.launch,
        {},
        prepare=embedded.prepare,
        stop_signal=embedded.stop_signal,
    )


def environment(
    settings: UpSettings, folder: DataFolder, choice: Choice, *, database_url: str, redis_url: str
) -> dict[str, str]:
    """What all our processes share; an empty value means unset to them."""
    shared = {
        "DF_DATABASE_URL": database_url,
        "DF_REDIS_URL": redis_url,
        "DF_EXECUTOR": "local",
        "DF_RUNNER_BACKEND": choice.mode.value,
        "DF_FAKE_RUNNER": "0",
        "DF_GENERATE_MODEL_PATH": str(choice.checkpoint) if choice.checkpoint else "",
        "DF_MODELS_ROOT": str(models_root(settings, folder)),
        "DF_LOG_LEVEL": settings.log_level.upper(),
        "PROMETHEUS_MULTIPROC_DIR": str(folder.metrics),
    }
    if settings.store == "filesystem":
        chosen = "store_root" in settings.model_fields_set
        shared["DF_STORE"] = "filesystem"
        shared["DF_STORE_ROOT"] = str(settings.store_root.absolute() if chosen else folder.objects)
    if settings.signing_key is None:
        shared["DF_SIGNING_KEY"] = folder.signing_key()
    return shared


def models_root(settings: UpSettings, folder: DataFolder) -> Path:
    """Where all our processes look for models; made, so that they may look from the start."""
    root = settings.models_root.expanduser().absolute() if settings.models_root else folder.models
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"DF_MODELS_ROOT: {root} can't be used: {error.strerror}") from error
    return root


def migration(shared: Mapping[str, str]) -> Spec:
    """Brings the schema to its newest state, once."""
    return Spec("migrate", _module("dreamforge_api.migrate"), shared, once=True)


def worker(shared: Mapping[str, str]) -> Spec:
    """Ingest and control: of no use before the schema is there."""
    return Spec("worker", _module("dreamforge_api.worker"), shared)


def early(
    shared: Mapping[str, str], folder: DataFolder, address: Address, slots: int, gpus: Sequence[str] = ()
) -> list[Spec]:
    """API and runners. They take longest to import and bear a schema that is still to come.

    Each runner gets one of ``gpus``, in turn, if there are any.
    """
    at = {"DF_API_HOST": address.host, "DF_API_PORT": str(address.port)}
    api = Spec("api", _module("dreamforge_api"), {**shared, **at})
    shares = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(slots)]
    return [api, *(_runner({**shared, **share}, folder.spool(slot), slot) for slot, share in enumerate(shares))]


def _runner(shared: Mapping[str, str], spool: Path, slot: int) -> Spec:
    spool.mkdir(parents=True, exist_ok=True)
    return Spec(
        f"runner-{slot}",
        _module("dreamforge_runner", "serve"),
        {**shared, "DF_SPOOL_DIR": str(spool), "DF_HASH_CACHE_PATH": str(spool.parent.parent / "hashes")},
    )


def _module(*arguments: str) -> "_Module":
    return _Module((sys.executable, "-m", *arguments))


@dataclass(frozen=True)
class _Module:
    argv: tuple[str, ...]

    def __call__(self) -> Launch:
        return launch(self.argv, death_signal=signal.SIGTERM)
