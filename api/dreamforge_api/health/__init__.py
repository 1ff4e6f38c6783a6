"""Whether the process lives, whether it can work, and what it measures."""
