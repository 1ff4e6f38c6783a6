"""Checkpoints on disk: what a file is and whether it is the right one, without loading it. No torch."""
