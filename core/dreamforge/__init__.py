"""The words every Dream Forge process agrees on.

``jobs`` states and their legal moves | ``spec`` what is rendered | ``events`` what a runner says and what a
reader sees | ``errors`` the closed list of things that go wrong | ``keys`` where image bytes live |
``presets`` named parameter bundles | ``models`` what can render | ``forms`` a model's parameters as JSON Schema |
``telemetry`` one log format.
Adapters: ``storage`` (filesystem, S3), ``transport`` (Redis/RQ, stdout), ``db`` (tables and repositories).

A thing enters this package when a second process needs it, not before.
"""

__version__ = "0.1.0"
