"""Names that came from strangers, made fit for a folder, a terminal and an id. Pure."""

import re
import unicodedata
from pathlib import PurePosixPath

SAFETENSORS = ".safetensors"
#: Formats that run code when they are read, or hold files of any format.
_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ +()-]")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_LONGEST = 100
_LONGEST_SUFFIX = 16
_EDGES = " .-+()"


def file_name(told: str) -> str:
    """The last part of a stranger's path as a plain name that no system takes for something else.

    Never a path, a hidden file or a device; what it can't hold becomes ``_``, and the suffix stays.
    """
    base = unicodedata.normalize("NFKD", told).replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = base.rpartition(".")
    if not dot or len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = base, ""
    stem = _NOT_PLAIN.sub("_", stem).strip(_EDGES)[:_LONGEST].strip(_EDGES) or "model"
    suffix = _NOT_PLAIN.sub("_", suffix).strip(_EDGES)
    name = re.sub(r"\.{2,}", ".", f"{stem}.{suffix}" if suffix else stem)
    return f"_{name}" if _DEVICES.fullmatch(name) else name


def words(told: object, longest: int = 120) -> str:
    """A stranger's text on one line, with nothing in it that a terminal obeys or that turns its direction."""
    text = str(told)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:longest]


def refused_format(path: str) -> str | None:
    """Why a file of this name is not even fetched; ``None`` for a name that may be."""
    suffix = PurePosixPath(path.lower()).suffix
    if suffix == SAFETENSORS:
        return None
    if suffix in _PICKLES:
        return f"{words(path)} is in a format that can run code when it is read"
    if suffix in _ARCHIVES:
        return f"{words(path)} is an archive"
    return f"{words(path)} is no {SAFETENSORS} file"
