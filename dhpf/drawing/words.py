"""Names of metrics, loss terms and classes as people write them."""

from __future__ import annotations


def in_words(name: str) -> str:
    """A stored name for people: "PCK@0.1 image" is "PCK@0.1 (image)", "cross_entropy" is "cross entropy"."""
    metric, _, threshold = name.partition(" ")
    if metric.startswith("PCK@") and threshold and not threshold.startswith("("):
        return f"{metric} ({threshold})"
    return name.replace("_", " ")
