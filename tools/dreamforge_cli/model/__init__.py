"""`dreamforge model`: get models, look at them, check them, take them away. The work itself is in `models`."""
