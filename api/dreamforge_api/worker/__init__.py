"""The worker process: ``ingest`` (events become rows and states) and ``control`` (rows become work)."""
