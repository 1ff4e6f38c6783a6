"""Every test of the project, one folder per tier."""
