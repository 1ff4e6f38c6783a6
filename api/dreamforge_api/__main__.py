"""``python -m dreamforge_api``: REST and event streams on one port.

``--check-settings`` reads the settings, says what is wrong in one line, and exits 0 or 2.
"""

import argparse
import os
import sys

from dreamforge import settings, telemetry
from dreamforge.crashpoints import CrashSettings, arm_from
from dreamforge.errors import ConfigurationError
from dreamforge.storage.settings import StorageSettings
from dreamforge_api import metrics, wiring
from dreamforge_api.server import Server
from dreamforge_api.settings import ApiSettings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dreamforge_api", description=__doc__)
    parser.add_argument("--check-settings", action="store_true", help="read the settings and exit: 0 good, 2 wrong")
    arguments = parser.parse_args()
    try:
        own = settings.load(ApiSettings)
        arm_from(settings.load(CrashSettings))
        services = wiring.build(own, settings.load(StorageSettings))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if arguments.check_settings:
        return 0
    telemetry.configure("api", own.log_level)
    metrics.forget_killed(own.prometheus_multiproc_dir)
    server = Server(services, host=own.api_host, port=own.api_port)
    server.run()
    metrics.forget_process(own.prometheus_multiproc_dir, os.getpid())
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
