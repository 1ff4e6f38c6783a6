"""How a job gets to a runner: one port (``base``), one module for each kind of executor."""
