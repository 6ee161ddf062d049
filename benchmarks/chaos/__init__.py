"""Faults of every kind against the real thing, and what they leave: `make chaos` writes docs/chaos.md.

Everything that has a result is compared with a run that nobody disturbed, row by row and in all columns.
"""
