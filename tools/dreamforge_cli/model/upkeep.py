"""`dreamforge model verify`, `remove` and `adopt`: models that are on this disk."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge import models_root
from dreamforge.errors import Unavailable
from dreamforge.models_root import Found, InstalledModel
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.exits import JOB_FAILED
from dreamforge_cli.model.convert import ConvertOption, right_after, wanted
from dreamforge_cli.model.download import installer, told
from dreamforge_cli.model.places import (
    DataOption,
    JsonOption,
    ModelId,
    Places,
    RootOption,
    edge,
    having,
    named,
    open_registry,
    places,
    register,
    unknown,
)
from dreamforge_cli.models import adopt as adoption
from dreamforge_cli.models import progress, removal
from dreamforge_cli.models import verify as verification
from dreamforge_cli.models.errors import BadReference
from dreamforge_cli.models.settings import ModelSettings
from dreamforge_cli.models.verify import Verdict


def verify(
    model_id: Annotated[str | None, typer.Argument(metavar="ID", help="One model; without it, all.")] = None,
    root: RootOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Read every byte of the installed models and compare with what was installed; brings the registry up to date.

    Exit status 1 when something is wrong. The cure is told: to download the model again, of which only what is
    wrong is fetched, or to adopt its file again.
    """
    with edge(kept="Nothing was changed."):
        where = places(load(ModelSettings), root, data)
        found = named(where.root, model_id) if model_id else list(models_root.scan(where.root))
        with progress.Silent() if json else progress.Bar() as reporter:
            reporter.started("verify", _sizes(found))
            verdicts = verification.verify(where.root, found, reporter.here)
        reason = _settle(where, verdicts)
    if json:
        console.as_json({"items": [_item(verdict) for verdict in verdicts], "registered": reason is None})
    else:
        _show(where, verdicts, reason, _options(root, data))
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(JOB_FAILED)


def remove(
    model_id: ModelId,
    root: RootOption = None,
    data: DataOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also when the registry can't say whether jobs use it.")
    ] = False,
) -> None:
    """Take a model off the disk and out of the registry. Refuses while jobs that are not over use it.

    Of a model that is not on the disk, it takes away what an interrupted download left, and its registration.
    """
    with edge(kept="Give the same command again to finish."):
        where = places(load(ModelSettings), root, data)
        found = having(where.root, model_id)
        registry = None if where.database_url is None or force else open_registry(where)
        if not found:
            _remove_traces(where.root, model_id, registry)
            return
        one = removal.only(found)
        try:
            removal.remove(where.root, one, registry)
        except Unavailable as error:
            hint = "so it is not known whether jobs use it; --force removes it all the same"
            raise Unavailable(f"{error}; {hint}") from error
        console.results.print(f"{console.harmless(one.folder.name)} removed")


def _remove_traces(root: Path, model_id: str, registry: Any) -> None:
    """What there may be of a model without its files."""
    discarded = removal.discard(root, model_id)
    if discarded:
        console.results.print(f"{console.harmless(', '.join(discarded))}: the unfinished download is removed")
        return
    if registry is None or not removal.forget(model_id, registry):
        raise unknown(root, model_id)
    console.results.print(f"{console.harmless(model_id)} removed from the registry; its files were gone already")


def enable(model_id: ModelId, root: RootOption = None, data: DataOption = None) -> None:
    """Offer a model to jobs again."""
    _switch(model_id, root, data, True)


def disable(model_id: ModelId, root: RootOption = None, data: DataOption = None) -> None:
    """Offer a model to no new job; its files and its running jobs stay."""
    _switch(model_id, root, data, False)


def _switch(model_id: str, root: Path | None, data: Path | None, enabled: bool) -> None:
    with edge():
        where = places(load(ModelSettings), root, data)
        known = [one.folder.name for one in models_root.scan(where.root)]
        named_ = [one for one in known if model_id == one.partition("@")[0]] or [model_id]
        with open_registry(where) as registry:
            missing = [one for one in named_ if not registry.switch(one, enabled)]
        if missing:
            raise BadReference(f"{missing[0]!r} is not registered; `dreamforge model list` shows what is")
        console.results.print(f"{console.harmless(', '.join(named_))} {'enabled' if enabled else 'disabled'}")


def adopt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An SDXL checkpoint, one .safetensors file.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="DIR", help="Folder with model_index.json and tokenizers, if not beside it."
        ),
    ] = None,
    slug: Annotated[
        str | None, typer.Option("--id", help="What jobs call it, instead of a name made from its own.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the bytes even where a hard link would do.")] = False,
    root: RootOption = None,
    data: DataOption = None,
    convert: ConvertOption = None,
    json: JsonOption = False,
) -> None:
    """Make a checkpoint that lies on this machine a model like any other.

    FILE stays where it is: the model gets a hard link to the same bytes, or a copy where the disk is another one.
    Where it came from is looked up in what lies beside it (a model's descriptor, or NAME.civitai.info). The network
    is asked only for SDXL's configuration, and only when that is nowhere on this machine.
    """
    with edge(json, "Nothing was installed."):
        settings = load(ModelSettings)
        where = places(settings, root, data)
        converting = wanted(settings, convert)
        reporter = progress.reporter(json)
        with installer(settings, where, reporter) as install:
            reporter.started(file.name, {file.name: file.stat().st_size if file.is_file() else None})
            wishes = adoption.Wishes(slug, name, config, copy)
            on_bytes = partial(reporter.here, file.name)
            outcome = adoption.adopt(where.root, file, wishes, on_bytes, install.configuration)
        told(where, outcome, json)
        if converting:
            right_after(where, outcome.folder, settings, json)


def _sizes(found: list[Found]) -> dict[str, int | None]:
    return {
        f"{one.folder.name}/{file.path}": file.size_bytes for one in found if one.model for file in one.model.present
    }


def _settle(where: Places, verdicts: list[Verdict]) -> str | None:
    """Stamp what is right, register everything; why the registry does not know, if it doesn't."""
    described = []
    for verdict in verdicts:
        if verdict.model is None:
            continue
        model = verification.stamp(where.root, verdict.model) if verdict.ok else verdict.model
        described.append(models_root.descriptor(where.root, model, verdict.problem))
    return register(where, described)


def _item(verdict: Verdict) -> dict[str, Any]:
    files = [{"path": file.path, "sha256": file.sha256, "problem": file.problem} for file in verdict.files]
    return {"id": verdict.id, "ok": verdict.ok, "problem": verdict.problem, "files": files}


def _options(root: Path | None, data: Path | None) -> str:
    """What makes another command work on the same models."""
    given = (("--root", root), ("--data", data))
    return "".join(f" {name} {shlex.quote(str(folder))}" for name, folder in given if folder is not None)


def _cure(model: InstalledModel, options: str) -> str:
    """The command that puts a model's files right under the id that it has."""
    if not adoption.is_adopted(model):
        return f"dreamforge model download {model.source_uri} --id {model.slug}{options}"
    file = model.checkpoint
    return (
        f"dreamforge model adopt FILE --id {model.slug}{options} "
        f"(FILE is a copy of {file.path} with the sha256 {file.sha256})"
    )


def _show(where: Places, verdicts: list[Verdict], reason: str | None, options: str) -> None:
    if not verdicts:
        console.results.print(f"no models in {where.root}")
        return
    for verdict in verdicts:
        wrong = [f"{file.path} {file.problem}" for file in verdict.files if file.problem]
        said = "; ".join(wrong) or verdict.problem or f"ok, {len(verdict.files)} files"
        console.results.print(f"{console.harmless(verdict.id)}: {console.harmless(said)}")
        if verdict.problem and verdict.model:
            console.results.print(f"  mend it: {console.harmless(_cure(verdict.model, options))}")
        elif not verdict.ok and not verdict.problem:
            console.results.print(
                "  runners go on with the checkpoint; mend it: "
                f"dreamforge model convert {console.harmless(verdict.id + options)}"
            )
    if reason:
        console.remarks.print(f"the registry was not told: {reason}")
