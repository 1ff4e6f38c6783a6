"""How far a download may go, how long it may take, and how patient it is."""

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds of fetching one file; the defaults suit checkpoints on a home connection and on a data centre's."""

    #: Ranges fetched at the same time.
    connections: int = 4
    #: What one request asks for, at most.
    segment_bytes: int = 16 * MIB
    #: How far a range may run ahead of the hash; bounds memory, since bytes wait there for their turn.
    window_bytes: int = 80 * MIB
    #: No byte for so long (or less than a KiB a second) is a broken connection.
    stall_seconds: float = 30
    #: Failures in a row, without progress between them, before giving up.
    tries: int = 8
    #: First pause after a failure; each further one doubles it, up to ``longest_pause_seconds``.
    pause_seconds: float = 0.5
    longest_pause_seconds: float = 30
    #: A server that wants us to wait longer than this gets its way: the download ends.
    longest_retry_after_seconds: float = 300
    #: Whole download of one file.
    seconds: float = 48 * 3600
    #: Larger than any checkpoint we know.
    file_bytes: int = 64 * 2**30
    #: Stays free on the disk.
    spare_bytes: int = 256 * MIB

    @property
    def stretch_bytes(self) -> int:
        """What one request asks for: short enough that all connections find room in the window."""
        return min(self.segment_bytes, max(self.window_bytes // (self.connections + 1), 64 * 1024))


@dataclass(frozen=True)
class Fetched:
    """A file in its place, whose bytes are what the source vouched for."""

    size_bytes: int
    sha256: str
    #: Bytes of the body that came over the network in this run, counted once more when they came again.
    received_bytes: int = 0
