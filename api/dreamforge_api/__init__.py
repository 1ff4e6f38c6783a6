"""The API process (REST, SSE) and the worker process (ingest, control): one image, two commands."""
