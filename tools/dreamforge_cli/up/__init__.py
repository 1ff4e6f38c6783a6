"""`dreamforge up`: the whole system as supervised child processes on one machine."""
