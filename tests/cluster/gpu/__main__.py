"""``python -m tests.cluster.gpu``: offers N GPUs to the kubelet until SIGTERM."""

import argparse
import signal
from pathlib import Path

from tests.cluster.gpu.plugin import GpuPlugin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1, help="how many GPUs")
    parser.add_argument(
        "--cdi-dir", type=Path, default=Path("/run/cdi"), help="a folder where the runtime seeks specs"
    )
    parser.add_argument("--plugins-dir", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    parser.add_argument("--unhealthy-file", type=Path, required=True, help="names of broken GPUs; * is all")
    given = parser.parse_args()
    plugin = GpuPlugin(given.count, given.cdi_dir, given.plugins_dir, given.unhealthy_file)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: plugin.stopped.set())
    plugin.run()


if __name__ == "__main__":
    main()
