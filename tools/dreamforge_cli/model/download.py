"""`dreamforge model download`: from a reference to an installed model, and what is said of it on the way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from dreamforge import models_root
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.model.convert import ConvertOption, right_after, wanted
from dreamforge_cli.model.places import DataOption, Places, RootOption, edge, places, register
from dreamforge_cli.models import progress, reference
from dreamforge_cli.models.disk import size
from dreamforge_cli.models.fetch.fetcher import fetch
from dreamforge_cli.models.fetch.guard import open_client
from dreamforge_cli.models.fetch.limits import Fetched, Limits
from dreamforge_cli.models.install import Installer, Outcome
from dreamforge_cli.models.settings import ModelSettings
from dreamforge_cli.models.sources.base import Configuration, ResolvedFile, ResolvedModel, SourceContext

_KEPT = "What was fetched is kept: the same command goes on from there."


def download(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF",
            help="hf:OWNER/REPOSITORY@REVISION#FILE or civitai:MODEL@VERSION; all from @ on may be left out. The "
            "address of the model's page does as well.",
        ),
    ],
    slug: Annotated[
        str | None, typer.Option("--id", help="What jobs call it, instead of a name made from its own.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    root: RootOption = None,
    data: DataOption = None,
    parallel: Annotated[int, typer.Option(min=1, max=32, help="Parts of a file that are fetched at a time.")] = 4,
    allow_unscanned: Annotated[
        bool,
        typer.Option(
            "--allow-unscanned",
            help="Take a file of CivitAI without clean scans; never one that they call dangerous.",
        ),
    ] = False,
    convert: ConvertOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON line a second, and one for each thing said.")
    ] = False,
) -> None:
    """Fetch a model, check every byte, install and register it. Give it again to go on after an interruption.

    Only .safetensors checkpoints of SDXL are taken. A model counts only when its sha256 is the one that its source
    tells. HF_TOKEN and CIVITAI_TOKEN are for files that need a login.

    Exit status: 0 installed (or it was already), 2 wrong usage, 3 network, 4 the bytes are wrong, 5 not allowed,
    6 disk.
    """
    with edge(json, _KEPT):
        settings = load(ModelSettings)
        where = places(settings, root, data)
        converting = wanted(settings, convert)
        limits = Limits(connections=parallel)
        with installer(settings, where, progress.reporter(json), limits, allow_unscanned) as install:
            outcome = install.install(ref, slug, name)
        told(where, outcome, json)
        if converting:
            right_after(where, outcome.folder, settings, json)


@contextmanager
def installer(
    settings: ModelSettings,
    where: Places,
    reporter: progress.Lines | progress.Bar,
    limits: Limits | None = None,
    allow_unscanned: bool = False,
) -> Iterator[Installer]:
    """All that installs, wired; the reporter is closed with it."""
    limits = limits or Limits()
    hosts = settings.model_allowed_hosts
    proxy = settings.model_proxy_url
    with reporter, open_client(hosts, connections_per_host=limits.connections + 1, proxy_url=proxy) as client:
        if proxy:
            reporter.remark("DF_MODEL_PROXY_URL: the proxy looks up names and decides what they lead to")
        if hosts:
            reporter.remark(
                f"DF_MODEL_ALLOWED_HOSTS: plain http and private addresses are allowed for {', '.join(hosts)}"
            )
        sources = SourceContext(client, settings.tokens, settings.endpoints, allow_unscanned, limits)
        yield Installer(where.root, Network(client, sources, limits), settings.sdxl_config_ref, reporter)


@dataclass(frozen=True)
class Network:
    """References and files, over one client."""

    client: httpx.Client
    sources: SourceContext
    limits: Limits

    def resolve(self, ref: str) -> ResolvedModel:
        return reference.resolve(ref, self.sources)

    def configuration(self, ref: str) -> Configuration:
        return reference.configuration(ref, self.sources)

    def fetch(self, file: ResolvedFile, destination: Path, on_bytes: Callable[[int], None]) -> Fetched:
        return fetch(file, destination, self.client, self.limits, lambda done, _total: on_bytes(done))


def told(where: Places, outcome: Outcome, json: bool) -> None:
    """Register what is installed and say what it came to."""
    model = outcome.model
    reason = register(where, [models_root.descriptor(where.root, model, None)])
    facts: dict[str, Any] = {
        "id": model.id,
        "name": model.name,
        "folder": str(outcome.folder),
        "source": model.source_uri,
        "sha256": model.checkpoint.sha256,
        "size": model.checkpoint.size_bytes,
        "fetched": outcome.fetched_bytes,
        "license": model.provenance.license or "not told",
        "registered": reason is None,
    }
    if json:
        console.as_json_line({"event": "already_installed" if outcome.already else "installed", **facts})
        return
    later = f"not yet: {reason}; a server finds it by itself when it looks into this folder"
    facts["registered"] = "yes" if reason is None else later
    facts |= {"size": size(model.checkpoint.size_bytes), "fetched": size(outcome.fetched_bytes)}
    console.results.print(f"{model.id} {'is there already' if outcome.already else 'is installed'}")
    console.facts([(f"  {name}", value) for name, value in facts.items() if name != "id"])
    console.results.print(f'next: dreamforge jobs create "a lighthouse at dawn" --model {model.id} --watch --out .')
