"""Real PostgreSQL and Redis as child processes: binaries found (``binaries``), launched (``launch``), served."""
