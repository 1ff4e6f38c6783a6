"""Which crash points kill, and which have killed: one file for each (see ``dreamforge.crashpoints``).

Every process is armed for every point, and the files of all points lie there, so nothing fires. Taking one away
arms that point; the process that dies there puts it back with its pid in it.
"""

from pathlib import Path

from dreamforge.crashpoints import CrashPoint

#: Those of the processes of one machine; the operator's are the cluster tier's to kill.
POINTS = tuple(point for point in CrashPoint if not point.startswith("operator."))


class Marks:
    """The folder of marks of one system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for point in POINTS:
            self._path(point).touch()

    @property
    def environment(self) -> dict[str, str]:
        return {"DF_CRASH_DIR": str(self.folder), "DF_CRASH_AT": ",".join(POINTS)}

    def arm(self, point: CrashPoint) -> None:
        """The next process that comes there dies, once."""
        self._path(point).unlink()

    def disarm(self, point: CrashPoint) -> None:
        self._path(point).touch()

    def victim(self, point: CrashPoint) -> int | None:
        """The pid of who died there last."""
        path = self._path(point)
        text = path.read_text() if path.exists() else ""
        return int(text) if text else None

    def never_killed(self) -> set[CrashPoint]:
        return {point for point in POINTS if self.victim(point) is None}

    def _path(self, point: CrashPoint) -> Path:
        return self.folder / point.value
