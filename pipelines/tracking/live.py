"""Plays a journal into MLflow while the run goes on, beside it, so that no stage ever waits for MLflow."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from dhpf.errors import InputError
from dhpf.pipelines.tracking.player import PLAYING_THREAD, Player
from dhpf.pipelines.tracking.tracker import Tracker

PLAYED_SECONDS = 3.0
"""Time between two looks at the journal."""

AGAIN_SECONDS = 30.0
"""Time after which an MLflow that did not answer is asked again."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def played_live(player: Player, tracker: Tracker) -> Iterator[None]:
    """Plays the journal within the block, and what is left of it when the block ends.

    What MLflow does not take is said once, when it stops to answer, and at the end.
    """
    ended = threading.Event()
    playing = threading.Thread(target=_play_until, args=(player, tracker, ended), name=PLAYING_THREAD, daemon=True)
    playing.start()
    try:
        yield
    finally:
        ended.set()
        playing.join()


def _play_until(player: Player, tracker: Tracker, ended: threading.Event) -> None:
    is_away, has_ended = False, False
    while True:
        try:
            player.play()
        except InputError as error:  # MLflow is away, or the work folder or bucket is
            if has_ended:
                _log.warning("%s; when it does, `dhpf track sync` fills in what it lacks of this run", error)
            elif not is_away:
                _log.warning("%s; the run goes on, and its journal in %s keeps all of it", error, tracker.work)
            is_away = True
        else:
            if is_away:
                _log.warning("MLflow at %s answers again, and has all of the run so far", tracker.uri)
            is_away = False
        if has_ended:
            return
        has_ended = ended.wait(AGAIN_SECONDS if is_away else PLAYED_SECONDS)
