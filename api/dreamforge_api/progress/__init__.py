"""How far a job is: a snapshot and a live stream."""
