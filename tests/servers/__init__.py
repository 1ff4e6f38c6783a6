"""Real servers for tests: by URL, else a binary of this machine, else a wheel."""
