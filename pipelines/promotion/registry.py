"""The model registry: versions with their verdicts, which of them is champion, promoting and rolling back.

The champion is MLflow's alias of that name. Which versions were champion before, oldest first, is a tag of the
registered model, so that a rollback is possible whoever promoted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dhpf.config import nearest_name
from dhpf.errors import InputError
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.tracking.tracker import UNREACHED, Tracker

CHAMPION = "champion"
CHAMPIONS_TAG = "dhpf.champions"
ROLLED_BACK_TAG = "dhpf.rolled_back"
VERDICT_TAGS = "dhpf.promotion."
EARLIER_VERDICT_TAGS = "dhpf.gate."
"""The tags' prefix in versions that an earlier release judged; they are read, and replaced by a new verdict."""
VERDICT_TAG = f"{VERDICT_TAGS}verdict"

MAX_CHAMPIONS = 200
"""At most this many champions are remembered, because the length of a tag is bounded."""


@dataclass(frozen=True)
class VersionFacts:
    """What the registry says of a version.

    Attributes:
        version: such as "3".
        aliases: that mean it now.
        tags: of the version.
        registered: when.
        run_id: of the training that made it; "" if none is known.
        verdict: its last verdict by the tags' names without their prefix, as `write_verdict` takes it; empty if none.
    """

    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    registered: datetime
    run_id: str

    @property
    def verdict(self) -> dict[str, str]:
        prefix = VERDICT_TAGS if VERDICT_TAG in self.tags else EARLIER_VERDICT_TAGS
        return {tag.removeprefix(prefix): value for tag, value in self.tags.items() if tag.startswith(prefix)}


class Registry:
    """The model registry that a tracker talks to; an InputError wherever it cannot be reached."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self._client = tracker, tracker.client

    def names(self) -> list[str]:
        """The registered models."""
        with self._tracker.reaching():
            return sorted(str(model.name) for model in self._tracker.registered_models())

    def versions(self, name: str) -> list[VersionFacts]:
        """The versions of a model, the newest first.

        Raises:
            InputError: no such model.
        """
        self._require_model(name)
        with self._tracker.reaching():
            aliases = self._client.get_registered_model(name).aliases
            found = list(self._tracker.versions(name))
        facts = [
            VersionFacts(
                version=str(v.version),
                aliases=tuple(sorted(alias for alias, of in aliases.items() if str(of) == str(v.version))),
                tags=dict(v.tags),
                registered=datetime.fromtimestamp(v.creation_timestamp / 1000, UTC),
                run_id=str(v.run_id or ""),
            )
            for v in found
        ]
        return sorted(facts, key=lambda version: -int(version.version))

    def find(self, name: str, reference: str) -> VersionFacts:
        """The version that a number or an alias means now.

        Raises:
            InputError: no such model, version or alias.
        """
        versions = self.versions(name)
        for version in versions:
            if reference in (version.version, *version.aliases):
                return version
        choices = [choice for version in versions for choice in (version.version, *version.aliases)]
        hint = nearest_name(reference, choices) if choices else "it has no versions"
        raise InputError(f"model {name}: no version or alias {reference!r}; {hint}")

    def champion(self, name: str) -> VersionFacts | None:
        """The version that the alias champion means now."""
        return next((v for v in self.versions(name) if CHAMPION in v.aliases), None)

    def write_verdict(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        """Replaces a version's verdict: every number of the earlier one goes.

        Args:
            tags: without their common prefix; "verdict" is written last, for it says that the rest is whole.
        """
        with self._tracker.reaching():
            earlier = [t for t in self.find(name, version).tags if t.startswith((VERDICT_TAGS, EARLIER_VERDICT_TAGS))]
            for tag in sorted(earlier, key=lambda tag: not tag.endswith(".verdict")):
                self._client.delete_model_version_tag(name, version, tag)
            for tag, value in sorted(tags.items(), key=lambda item: item[0] == "verdict"):
                self._client.set_model_version_tag(name, version, VERDICT_TAGS + tag, value)

    def promote(self, name: str, version: str, over: str | None) -> None:
        """Makes a version the champion.

        Args:
            over: the champion that it was compared with; None for none.

        Raises:
            InputError: another version has become champion meanwhile.
        """
        champion = self.champion(name)
        now = champion.version if champion else None
        if now != over:
            raise InputError(
                f"model {name}: its champion changed from version {over or 'none'} to {now or 'none'} during the "
                "comparison; compare again"
            )
        with self._tracker.reaching():
            # The alias is written first: if only it is written, a rollback still finds the earlier champion.
            self._client.set_registered_model_alias(name, CHAMPION, version)
            self._write_champions(name, [*champions_with(self._champions(name), now), version])

    def rollback(self, name: str) -> tuple[str, str]:
        """Makes the champion before the present one champion again.

        Returns:
            the version that was champion, and the one that now is.

        Raises:
            InputError: no champion, or none before it.
        """
        champion = self.champion(name)
        if champion is None:
            raise InputError(f"model {name}: has no champion to roll back; promote a version first")
        existing = {version.version for version in self.versions(name)}
        with self._tracker.reaching():
            before = champions_before(self._champions(name), champion.version, existing)
            if not before:
                raise InputError(f"model {name}: no champion before version {champion.version} to go back to")
            said = f"to version {before[-1]} on {now_text()} by code {code_version()}"
            self._client.set_model_version_tag(name, champion.version, ROLLED_BACK_TAG, said)
            self._client.set_registered_model_alias(name, CHAMPION, before[-1])
            self._write_champions(name, before)
        return champion.version, before[-1]

    def _champions(self, name: str) -> list[str]:
        return str(self._client.get_registered_model(name).tags.get(CHAMPIONS_TAG, "")).split()

    def _write_champions(self, name: str, champions: Sequence[str]) -> None:
        self._client.set_registered_model_tag(name, CHAMPIONS_TAG, " ".join(champions[-MAX_CHAMPIONS:]))

    def _require_model(self, name: str) -> None:
        with self._tracker.reaching():
            try:
                self._client.get_registered_model(name)
            except UNREACHED as error:
                names = self.names()  # raises in its turn when the reason is that the registry cannot be reached
                hint = nearest_name(name, names) if names else "there is none yet; run a workflow that trains"
                raise InputError(f"model {name!r}: not in the registry {self._tracker.uri}; {hint}") from error


def champions_with(champions: Sequence[str], now: str | None) -> list[str]:
    """The champions so far, the present one last, which somebody may have set by hand."""
    return list(champions) if now is None or list(champions[-1:]) == [now] else [*champions, now]


def champions_before(champions: Sequence[str], now: str, existing: set[str]) -> list[str]:
    """The champions before the present one, without versions that were deleted."""
    before = champions_with(champions, now)
    while before and (before[-1] == now or before[-1] not in existing):
        before.pop()
    return before


def now_text() -> str:
    """The time as tags give it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
