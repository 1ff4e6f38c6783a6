"""Unit tests of the shared core."""
