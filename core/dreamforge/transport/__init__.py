"""How events and work travel between processes: ports (``base``), Redis/RQ (``redis``), a person's terminal (``stdout``)."""
