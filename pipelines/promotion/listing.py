"""Versions of registered models as rows of a table: aliases, metric, verdict, differences from the champion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dhpf.pipelines.promotion.registry import CHAMPION, ROLLED_BACK_TAG, Registry, VersionFacts
from dhpf.pipelines.tracking.registering import METRIC_TAGS

COLUMNS = ("version", "aliases", "registered", "val PCK", "verdict", "against the champion")
"""Titles of the cells of a VersionRow."""


@dataclass(frozen=True)
class VersionRow:
    """One version of a registered model.

    Attributes:
        model: its registered model.
        version: what the registry says of it.
    """

    model: str
    version: VersionFacts

    @property
    def val_pck(self) -> float | None:
        """Of the epoch that was kept, in [0, 1]."""
        value = self.version.tags.get(f"{METRIC_TAGS}val_pck")
        return float(value) if value else None

    @property
    def is_rolled_back(self) -> bool:
        """Whether it was champion and was rolled back since."""
        return ROLLED_BACK_TAG in self.version.tags and CHAMPION not in self.version.aliases

    @property
    def differences(self) -> dict[str, dict[str, float]]:
        """By benchmark, the PCK's difference from the champion of the time with the interval's low and high end."""
        verdict, suffix = self.version.verdict, "/difference"
        checks = [name.removesuffix(suffix) for name in sorted(verdict) if name.endswith(suffix)]
        keys = ("difference", "low", "high")
        return {check.removeprefix("pck "): {key: float(verdict[f"{check}/{key}"]) for key in keys} for check in checks}

    def cells(self) -> list[str]:
        """The row in words, one for each of COLUMNS."""
        verdict = self.version.verdict.get("verdict", "not judged")
        points = [
            f"{on} {100 * found['difference']:+.1f} [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
            for on, found in self.differences.items()
        ]
        return [
            self.version.version,
            ", ".join(self.version.aliases) or "-",
            f"{self.version.registered:%Y-%m-%d %H:%M}",
            "-" if self.val_pck is None else f"{100 * self.val_pck:.1f}",
            f"{verdict}, rolled back" if self.is_rolled_back else verdict,
            "; ".join(points) or "-",
        ]

    def facts(self) -> dict[str, Any]:
        """The row as JSON values, with all tags of the version."""
        return {
            "name": self.model,
            "version": self.version.version,
            "aliases": list(self.version.aliases),
            "registered": self.version.registered.isoformat(),
            "val_pck": self.val_pck,
            "verdict": self.version.verdict.get("verdict"),
            "rolled_back": self.is_rolled_back,
            "differences": self.differences,
            "tags": dict(self.version.tags),
        }


def version_rows(registry: Registry, name: str | None) -> dict[str, list[VersionRow]]:
    """The versions of one registered model, or of each where `name` is None, the newest first.

    Raises:
        InputError: no such model.
    """
    names = registry.names() if name is None else [name]
    return {model: [VersionRow(model, version) for version in registry.versions(model)] for model in names}
