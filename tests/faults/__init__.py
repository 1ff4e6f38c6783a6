"""The real system under load while its processes are killed, frozen and emptied; then every promise is checked."""
