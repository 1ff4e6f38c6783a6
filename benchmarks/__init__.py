"""Benchmarks: ours against a bare reference, interleaved in one run. ``make bench`` runs them all.

Figures depend on the machine and on what else runs there; only the ratio printed last is meant to be compared.
"""
