"""Bytes from a URL into a file of a known sha256: resumable, bounded, and only from where it may."""
