"""Models: from a reference to a verified, registered, runnable checkpoint, without trusting what was downloaded."""
