"""A job as lines of NDJSON."""
