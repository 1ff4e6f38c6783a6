"""Are the bytes on the disk those that were installed? Every file is read, nothing that is remembered is believed."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dreamforge import models_root
from dreamforge.checkpoints import configuration, digest, sdxl
from dreamforge.errors import JobError
from dreamforge.models import ModelFile, ModelKind
from dreamforge.models_root import CONFIG_FOLDER, Found, InstalledModel
from dreamforge_cli.models import disk
from dreamforge_cli.models.errors import DiskError
from dreamforge_cli.models.staging import Staging, installed


class Interrupted(Exception):
    """The command was told to stop; ends the threads that read."""


@dataclass(frozen=True)
class FileVerdict:
    """One file; ``problem`` is ``None`` when its bytes are those that were installed."""

    path: str
    sha256: str | None
    problem: str | None


@dataclass(frozen=True)
class Verdict:
    """One folder of the models root. ``model`` is ``None`` when its descriptor can't be read.

    ``problem`` is why it can't be rendered; files that only save time may be wrong without one.
    """

    folder: Path
    model: InstalledModel | None
    files: tuple[FileVerdict, ...]
    problem: str | None

    @property
    def id(self) -> str:
        return self.model.id if self.model else self.folder.name

    @property
    def ok(self) -> bool:
        """Nothing at all is wrong."""
        return self.problem is None and not any(file.problem for file in self.files)


def verify(root: Path, found: Iterable[Found], on_bytes: Callable[[str, int], None]) -> list[Verdict]:
    """Hash everything, as many files at a time as there are cores, the largest first.

    ``on_bytes`` hears names (``id/path``) and how many bytes of that file are read. The hash memory of the root is
    told, so that others see a change that size and time don't show.
    """
    models = list(found)
    jobs = [(one, file) for one in models if one.model for file in one.model.present]
    jobs.sort(key=lambda job: -job[1].size_bytes)
    over = threading.Event()

    def heard(name: str, size: int) -> None:
        if over.is_set():
            raise Interrupted
        on_bytes(name, size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            verdicts = list(pool.map(lambda job: _file(root, job[0], job[1], heard), jobs))
        except BaseException:  # Ctrl-C must not wait for gigabytes
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    by_file = {(one.folder, verdict.path): verdict for (one, _), verdict in zip(jobs, verdicts, strict=True)}
    return [_model(one, by_file) for one in models]


def stamp(root: Path, model: InstalledModel) -> InstalledModel:
    """The model, verified now; its descriptor says so too, if that is still there and can be written."""
    verified = model.model_copy(update={"verified_at": datetime.now(UTC)})
    with suppress(DiskError), Staging(root, model.folder).held(lambda: None), disk.errors_of(root):
        if installed(root / model.folder) == model:
            models_root.write(root, verified)
    return verified


def _file(root: Path, one: Found, file: ModelFile, on_bytes: Callable[[str, int], None]) -> FileVerdict:
    path = one.folder / file.path
    read = 0

    def count(size: int) -> None:
        nonlocal read
        read += size
        on_bytes(f"{one.folder.name}/{file.path}", read)

    if path.is_symlink() or not path.resolve().is_relative_to(one.folder.resolve()):
        return FileVerdict(file.path, None, "is not a file inside the model's folder")
    try:
        found = digest.read(path, digest.memory_of(root), on_bytes=count)
    except JobError as error:
        return FileVerdict(file.path, None, str(error))
    if read != file.size_bytes:
        return FileVerdict(file.path, found, f"has {read} bytes; {file.size_bytes} were installed")
    if found != file.sha256:
        return FileVerdict(file.path, found, f"has the sha256 {found}; {file.sha256} was installed")
    return FileVerdict(file.path, found, None)


def _model(one: Found, by_file: dict[tuple[Path, str], FileVerdict]) -> Verdict:
    if one.model is None:
        return Verdict(one.folder, None, (), one.problem)
    files = tuple(by_file[one.folder, file.path] for file in one.model.present)
    needed = {file.path for file in one.model.needed}
    wrong = [f"{file.path} {file.problem}" for file in files if file.problem and file.path in needed]
    problem = one.problem or (wrong[0] if wrong else _unloadable(one.folder, one.model))
    return Verdict(one.folder, one.model, files, problem)


def _unloadable(folder: Path, model: InstalledModel) -> str | None:
    """What the runner would refuse, now that the bytes are right."""
    try:
        if model.original_kept:
            check(folder, model.kind, model.checkpoint.path)
        else:
            configuration.check(folder / CONFIG_FOLDER)
    except JobError as error:
        return str(error)
    return None


def check(folder: Path, kind: ModelKind, checkpoint: str) -> None:
    """Raise ``JobError`` for what no runner would load: the same questions that it asks, before any library reads."""
    if kind is ModelKind.SDXL_CHECKPOINT:
        sdxl.inspect(folder / checkpoint)
        configuration.check(folder / CONFIG_FOLDER)
