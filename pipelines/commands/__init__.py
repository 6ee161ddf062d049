"""The commands of `dhpf`, one file for each group of them.

Importing a command imports no more than what parses its options: what it works with is imported when it runs.
"""
