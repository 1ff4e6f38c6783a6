"""The stack from start to end: servers, schema, services, readiness; then waiting; then stopping in order."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from dreamforge.errors import ConfigurationError
from dreamforge.settings import load
from dreamforge_cli.embedded.postgres import EmbeddedPostgres
from dreamforge_cli.embedded.redis import EmbeddedRedis
from dreamforge_cli.embedded.server import EmbeddedServer, free_port
from dreamforge_cli.settings import UpSettings
from dreamforge_cli.up import gpus, plan
from dreamforge_cli.up.backend import choose, installed
from dreamforge_cli.up.checks import check_every_setting
from dreamforge_cli.up.folder import DataFolder
from dreamforge_cli.up.logs import LogFile
from dreamforge_cli.up.process import Spec, Supervised

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 10.0
# Stand for servers of our own while the other settings are checked, before anything is started.
_SOME_POSTGRES = "postgresql+psycopg://127.0.0.1/postgres"
_SOME_REDIS = "redis://127.0.0.1/0"


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    data: Path
    address: plan.Address
    settings: UpSettings
    slots: int


def run(options: Options) -> int:
    """Run until Ctrl-C or SIGTERM; the exit status. Raises ``ConfigurationError`` before anything is started."""
    folder = DataFolder(options.data)
    try:
        address = _free(options.address)
    except ConfigurationError:
        folder.require_free()  # of another `up` on this folder, that is what the person must hear
        raise
    with folder.held(address.url):
        return asyncio.run(Stack(options, folder, address).run())


class Stack:
    """All children of one `up`."""

    def __init__(self, options: Options, folder: DataFolder, address: plan.Address) -> None:
        self._options = options
        self._settings = options.settings
        self._folder = folder
        self._address = address
        self._children: list[tuple[Supervised, asyncio.Task[None]]] = []
        self._models_root = plan.models_root(options.settings, folder)
        self._installed = installed(self._models_root)
        self._choice = choose(
            options.settings.runner_backend, options.settings.generate_model_path, installed=self._installed
        )

    async def run(self) -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(sign, stop.set)
        starting = asyncio.create_task(self._start())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        try:
            if starting.done():
                await starting
                await stopped
                say("stopping")
        except ConfigurationError as error:
            say(str(error))
            return 2
        finally:
            starting.cancel()
            stopped.cancel()
            await self._stop()
        return 0

    async def _start(self) -> None:
        say(f"data: {self._folder.root} (logs in {self._folder.logs})")
        say(self._choice.said)
        check_every_setting(
            self._environment(self._settings.database_url or _SOME_POSTGRES, self._settings.redis_url or _SOME_REDIS)
        )
        servers = await self._servers()
        self._folder.keep_servers(*servers, str(self._models_root))
        shared = self._environment(*servers)
        migration, migrated = self._keep(plan.migration(shared))
        slots = self._options.slots
        shares = await asyncio.to_thread(gpus.shared_out, self._settings.visible_devices, slots)
        early = plan.early(shared, self._folder, self._address, slots, shares)
        children = [migration, *(self._keep(spec)[0] for spec in early)]
        await self._unless_refused(migrated, children)
        children.append(self._keep(plan.worker(shared))[0])
        await self._unless_refused(asyncio.create_task(self._until_ready()), children)
        print(f"dreamforge ready: {self._address.url}", flush=True)  # noqa: T201 - the promised line

    def _environment(self, database_url: str, redis_url: str) -> dict[str, str]:
        return plan.environment(
            self._settings, self._folder, self._choice, database_url=database_url, redis_url=redis_url
        )

    async def _servers(self) -> tuple[str, str]:
        """URLs of PostgreSQL and Redis, ours running, others as they are."""
        given = self._settings
        postgres = None if given.database_url else EmbeddedPostgres(self._folder.postgres)
        redis = None if given.redis_url else EmbeddedRedis(self._folder.redis)
        say(f"PostgreSQL: {postgres.source if postgres else 'the one of DF_DATABASE_URL'}")
        say(f"Redis: {redis.source if redis else 'the one of DF_REDIS_URL'}")
        ours: list[EmbeddedServer] = [server for server in (postgres, redis) if server]
        for server in ours:
            self._keep(plan.server(server))
        for server in ours:
            await self._until_answers(server)
        return (
            postgres.url if postgres else str(given.database_url),
            redis.url if redis else str(given.redis_url),
        )

    async def _until_answers(self, server: EmbeddedServer) -> None:
        patience = time.monotonic() + _PATIENCE_SECONDS
        while not await asyncio.to_thread(server.ready):
            if time.monotonic() > patience:
                say(f"{server.name}: still not answering; see {self._folder.logs / server.name}.ndjson")
                patience += _PATIENCE_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)

    async def _until_ready(self) -> None:
        """Wait for `/readyz`; say now and then what is missing."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        async with httpx.AsyncClient(base_url=self._address.url, timeout=5, trust_env=False) as client:
            while True:
                answer = "no answer"
                with contextlib.suppress(httpx.HTTPError):
                    response = await client.get("/readyz")
                    if response.status_code == httpx.codes.OK:
                        await self._until_registered(client)
                        return
                    answer = response.text[:500]
                if time.monotonic() > patience:
                    say(f"not ready yet: {answer}")
                    patience += _PATIENCE_SECONDS
                await asyncio.sleep(_LOOK_SECONDS)

    async def _until_registered(self, client: httpx.AsyncClient) -> None:
        """A model in the root is of use once the worker has registered it; one it must read first takes longer."""
        missing, deadline = set(self._installed), time.monotonic() + _PATIENCE_SECONDS
        while missing and time.monotonic() < deadline:
            answers = {model_id: await client.get(f"/v1/models/{model_id}") for model_id in missing}
            missing = {model_id for model_id, answer in answers.items() if not answer.is_success}
            await asyncio.sleep(_LOOK_SECONDS if missing else 0)
        if missing:
            say(f"still being checked, and of use after that: {', '.join(sorted(missing))}")

    async def _unless_refused(self, work: asyncio.Task[None], children: list[Supervised]) -> None:
        """Wait for ``work``; a child that calls a setting wrong ends the wait with its words."""
        refusals = [asyncio.create_task(child.refused.wait()) for child in children]
        try:
            await asyncio.wait([work, *refusals], return_when=asyncio.FIRST_COMPLETED)
            for child in children:
                if child.refused.is_set():
                    raise ConfigurationError(f"{child.spec.name}: {child.last_line}")
            await work
        finally:
            for refusal in refusals:
                refusal.cancel()

    def _keep(self, spec: Spec) -> tuple[Supervised, asyncio.Task[None]]:
        child = Supervised(
            spec, LogFile(self._folder.logs, spec.name), say, longest_pause=self._settings.restart_longest_seconds
        )
        task = asyncio.create_task(child.run(), name=spec.name)
        self._children.append((child, task))
        return child, task

    async def _stop(self) -> None:
        """End all children in order; what one leaves of its time, the next may use."""
        began = time.monotonic()
        for names, by in plan.STOP_ORDER:
            group = [(c, t) for c, t in self._children if c.spec.name.partition("-")[0] in names]
            seconds = began + by - time.monotonic()
            await asyncio.gather(*(child.stop(seconds) for child, _ in group))
            await asyncio.gather(*(task for _, task in group), return_exceptions=True)
            for child, _ in group:
                child.log.close()


def say(line: str) -> None:
    """One line for the person at the terminal; stdout stays free for the ready line."""
    with contextlib.suppress(OSError):  # nobody reads any more; the children run on
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - a person's terminal


def _free(address: plan.Address) -> plan.Address:
    """The address with a real port; raises ``ConfigurationError`` when something listens there."""
    if address.port == 0:
        return plan.Address(address.host, free_port())
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise ConfigurationError(
                f"--host {address.host} --port {address.port}: can't listen there: {error.strerror}; "
                "choose another --port"
            ) from error
    return address


def options(data: Path, host: str, port: int, slots: int, overrides: dict[str, object]) -> Options:
    """The command line over the environment over the defaults; ``None`` in ``overrides`` means not given."""
    given = {name: value for name, value in overrides.items() if value is not None}
    return Options(data, plan.Address(host, port), load(UpSettings, **given), slots)
