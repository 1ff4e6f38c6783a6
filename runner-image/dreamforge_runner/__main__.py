"""``python -m dreamforge_runner once SPEC``, ``... serve``, and ``... convert FOLDER``."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dreamforge import telemetry
from dreamforge.crashpoints import CrashSettings, arm_from
from dreamforge.errors import ConfigurationError
from dreamforge.settings import load
from dreamforge.storage.factory import open_storage
from dreamforge.storage.settings import StorageSettings
from dreamforge_runner import convert as convert_command
from dreamforge_runner.backends.sdxl.plan import Number
from dreamforge_runner.once import Once
from dreamforge_runner.serve import Server
from dreamforge_runner.settings import RunnerSettings


def main() -> int:
    """The exit code: 0 or a class of ``dreamforge.errors``; 2 for wrong usage or settings."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "convert":
            telemetry.configure("runner")
            return convert_command.run(arguments.folder, arguments.dtype, keep_original=not arguments.drop_original)
        settings = load(RunnerSettings)
        telemetry.configure("runner", settings.log_level)
        arm_from(load(CrashSettings))
        storage = open_storage(load(StorageSettings))
        if arguments.command == "once":
            program = Once(settings, storage)
            _stop_on_signal(program.stop)
            return program.run(arguments.spec)
        server = Server(settings, storage)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    _stop_on_signal(server.stop)
    server.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dreamforge_runner", description="Renders jobs.")
    commands = parser.add_subparsers(dest="command", required=True)
    once = commands.add_parser("once", help="render one spec file and exit with its class's code")
    once.add_argument("spec", type=Path, help="path of a render spec (JSON)")
    commands.add_parser("serve", help="take specs from Redis until told to stop")
    convert = commands.add_parser("convert", help="write an SDXL model once more, as runners load it quickest")
    convert.add_argument("folder", type=Path, help="the model's folder, such as models/sdxl-checkpoint/ID")
    convert.add_argument(
        "--dtype",
        type=Number,
        choices=list(Number),
        help="unset: what it is in already, else what this machine wants",
    )
    convert.add_argument("--drop-original", action="store_true", help="remove the checkpoint when that is done")
    return parser


def _stop_on_signal(stop: Callable[[], None]) -> None:
    def handle(_: int, __: FrameType | None) -> None:
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


if __name__ == "__main__":
    sys.exit(main())
