"""Fast tests of one module at a time; no sockets."""
