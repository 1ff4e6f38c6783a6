"""Jobs: create, read, list, cancel."""
