"""`dreamforge model convert`, and the same right after a model was installed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge import models_root
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.model.places import (
    DataOption,
    JsonOption,
    ModelId,
    Places,
    RootOption,
    edge,
    named,
    places,
    register,
)
from dreamforge_cli.models import conversion, removal
from dreamforge_cli.models.disk import size
from dreamforge_cli.models.settings import ModelSettings

KeepOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-original/--drop-original",
        help="Whether the checkpoint stays beside its converted files; unset: DF_MODEL_KEEP_ORIGINAL.",
        show_default=False,
    ),
]
ConvertOption = Annotated[
    bool | None,
    typer.Option(
        "--convert/--no-convert",
        help="Convert it as `model convert` does; unset: DF_MODEL_CONVERT.",
        show_default=False,
    ),
]


def convert(
    model_id: ModelId,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="bfloat16, float16 or float32; unset: what it is in already, else what runners on this machine want."
        ),
    ] = None,
    keep: KeepOption = None,
    root: RootOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """Write a model's checkpoint once more, as runners load it quickest: a file for each part, in one number type.

    Every bit is compared with what the checkpoint gives. Needs SDXL's libraries and room for the files: as much as
    the checkpoint, or twice that in float32. Runners that want another number type go on with the checkpoint.
    """
    with edge(kept="The model is as it was."):
        settings = load(ModelSettings)
        where = places(settings, root, data)
        one = removal.only(named(where.root, model_id))
        conversion.check_libraries()
        facts = _converted(where, one.folder, dtype, settings.model_keep_original if keep is None else keep)
        if json:
            console.as_json(facts)


def wanted(settings: ModelSettings, asked: bool | None) -> bool:
    """Whether what is installed next is to be converted; raises before anything is fetched when it can't be."""
    answer = settings.model_convert if asked is None else asked
    if answer:
        conversion.check_libraries()
    return answer


def right_after(where: Places, folder: Path, settings: ModelSettings, json: bool) -> None:
    """Convert what was just installed."""
    facts = _converted(where, folder, None, settings.model_keep_original)
    if json:
        console.as_json_line(facts)


def _converted(where: Places, folder: Path, dtype: str | None, keep_original: bool) -> dict[str, Any]:
    name = console.harmless(folder.name)
    with console.remarks.status(f"{name}: converting, which takes a minute or two"):
        facts = conversion.convert(folder, dtype, keep_original=keep_original)
    model = models_root.read(folder)
    register(where, [models_root.descriptor(where.root, model, models_root.problem_of(folder, model))])
    original = "the checkpoint is kept" if facts["original_kept"] else "the checkpoint is removed"
    done = "is converted already" if facts["event"] == "already_converted" else "is converted"
    console.remarks.print(f"{name} {done}: {size(facts['bytes'])} in {facts['dtype']}; {original}")
    return facts
