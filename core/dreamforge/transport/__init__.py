"""How events and work travel: ports (``base``), names, Redis/RQ (``redis``), a terminal (``stdout``)."""
