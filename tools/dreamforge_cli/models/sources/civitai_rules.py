"""Which version and file of a CivitAI model is meant, and whether it may be fetched. Pure."""

from datetime import datetime
from fnmatch import fnmatchcase

from dreamforge.models import plain
from dreamforge_cli.models.errors import BadReference, NotAllowed
from dreamforge_cli.models.sources import names
from dreamforge_cli.models.sources.civitai_api import File, Model, Version

_MOST_LISTED = 12


def pick_version(model: Model, wanted: str | None) -> Version:
    """The version by id or by name, else the newest one."""
    if not model.versions:
        raise NotAllowed(f"{model.shown} has no version that is public")
    if wanted is None:
        return model.versions[0]
    by_id = [version for version in model.versions if str(version.id) == wanted]
    named = [version for version in model.versions if version.name.casefold() == wanted.casefold()]
    if found := by_id or named:
        return found[0]
    listed = ", ".join(f"@{v.id} ({names.words(v.name, 40)})" for v in model.versions[:_MOST_LISTED])
    raise BadReference(f"{model.shown} has no version {names.words(wanted)}; there is: {listed}")


def check_model(model: Model, version: Version, now: datetime, *, with_token: bool) -> None:
    """Raise for a model that does not render here, or that may not be downloaded."""
    if model.mode in ("Archived", "TakenDown"):
        state = "archived" if model.mode == "Archived" else "taken down"
        raise NotAllowed(f"{model.shown} is {state}: CivitAI does not give its files out any more")
    if model.type != "Checkpoint":
        raise NotAllowed(
            f"{model.shown} is a {names.words(model.type)}, not a Checkpoint: it does not render by itself"
        )
    if not version.is_sdxl:
        fitting = [f"@{v.id} ({names.words(v.name, 40)})" for v in model.versions if v.is_sdxl]
        hint = f"; these versions are: {', '.join(fitting[:_MOST_LISTED])}" if fitting else ""
        base = names.words(version.base_model or "unknown")
        raise NotAllowed(f"{model.shown} {names.words(version.name, 40)} is made on {base}, not on SDXL{hint}")
    if version.usage_control not in (None, "Download"):
        raise NotAllowed(f"{model.shown}: its creator lets it be used on CivitAI only, not downloaded")
    until = version.early_access_ends
    if until is not None and until > now and not with_token:
        raise NotAllowed(
            f"{model.shown} is in early access until {until:%Y-%m-%d %H:%M} UTC: wait, or get access on its page "
            "and set CIVITAI_TOKEN"
        )


def choose(model: Model, version: Version, wanted: str | None) -> File:
    """The one file that is meant; raises with what there is to choose from."""
    matching = [file for file in version.files if wanted is None or _is_meant(file, wanted)]
    usable = [file for file in matching if file.is_checkpoint]
    candidates = usable if wanted else [file for file in usable if file.primary] or usable
    if len(candidates) == 1:
        return candidates[0]
    if usable:
        listed = ", ".join(file.shown for file in usable[:_MOST_LISTED])
        raise BadReference(f"{model.shown}: {len(usable)} files fit; add one of these: {listed}")
    if matching:
        formats = ", ".join(sorted({f"{file.type} as {file.format}" for file in matching}))
        raise NotAllowed(
            f"{model.shown} has no safetensors checkpoint there, only: {names.words(formats)}; "
            "formats that can run code, archives and parts of a model are not fetched"
        )
    everything = ", ".join(file.shown for file in version.files if file.is_checkpoint)
    raise BadReference(
        f"{model.shown} has no file {names.words(wanted)}" + (f"; there is: {everything}" * bool(everything))
    )


def _is_meant(file: File, wanted: str) -> bool:
    return str(file.id) == wanted if wanted.isdecimal() else fnmatchcase(file.name.lower(), wanted.lower())


def check_file(file: File, *, allow_unscanned: bool) -> tuple[str, ...]:
    """Raise for a file without SHA256 or clean scans; the warnings that go with one that is allowed all the same."""
    name = names.words(file.name)
    if file.sha256 is None:
        raise NotAllowed(f"CivitAI tells no SHA256 of {name}: what nobody vouches for is not fetched")
    scans = {"pickle scan": file.pickle_scan, "virus scan": file.virus_scan}
    failed = {what: result for what, result in scans.items() if result != "Success"}
    if not failed:
        return ()
    told = ", ".join(f"{what}: {names.words(result or 'none', 40)}" for what, result in failed.items())
    if "Danger" in failed.values():
        raise NotAllowed(f"CivitAI's scans call {name} dangerous ({told}); it is not fetched")
    if not allow_unscanned:
        raise NotAllowed(
            f"CivitAI has not found {name} clean ({told}): wait for its scans, or take --allow-unscanned"
        )
    return (f"UNSCANNED: {name} was not found clean by CivitAI ({told}); it is fetched because you said so",)


def version_name(version: Version, file: File) -> str:
    """Unique for the file, and readable: ``v8-kiss-456538``, with the file's id when it is not the primary one."""
    readable = plain(version.name)[:36].strip("-.")
    base = f"{readable}-{version.id}" if readable else str(version.id)
    return base if file.primary or len(version.files) == 1 else f"{base}-{file.id}"
