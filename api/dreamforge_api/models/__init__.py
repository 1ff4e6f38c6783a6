"""The model registry: what can render, and which model a request means."""
