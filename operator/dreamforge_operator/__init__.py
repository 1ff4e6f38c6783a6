"""The operator: turns each ``RenderJob`` into a child Job and says in its status how that goes.

Watch events only name objects (:mod:`handlers` -> :mod:`queue`); one idempotent :mod:`reconcile` reads what is live,
the pure :mod:`plan` decides, :mod:`cluster` acts. A full pass on a timer makes lost events cost seconds.
"""
