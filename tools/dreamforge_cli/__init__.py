"""The `dreamforge` command: the embedded stack, the demo, and a client for the API."""
