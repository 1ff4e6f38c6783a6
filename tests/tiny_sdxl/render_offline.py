"""A process that renders with nobody to talk to: any use of a network address ends it.

    python -m tests.tiny_sdxl.render_offline FOLDER IMAGE

prints nothing at all, neither at import nor while it renders, and writes the pixels to IMAGE.
"""

import os
import sys
from pathlib import Path

#: Not "socket.bind": urllib3 binds a local port at import to learn whether IPv6 works.
_NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")


def _forbid(event: str, arguments: tuple[object, ...]) -> None:
    if event in _NETWORK:
        os.write(2, f"{event} {arguments}\n".encode())
        os._exit(99)


def main() -> None:
    sys.addaudithook(_forbid)
    from dreamforge_runner.backends.sdxl import SdxlBackend  # noqa: PLC0415 - after the hook, which is the point
    from tests import tiny_sdxl  # noqa: PLC0415
    from tests.golden import renders  # noqa: PLC0415

    backend = SdxlBackend()
    backend.load(renders.model(tiny_sdxl.TinySdxl.below(Path(sys.argv[1]))))
    pixels = renders.render(backend, renders.params("long-prompt"))
    Path(sys.argv[2]).write_bytes(pixels.rgb)


if __name__ == "__main__":
    main()
