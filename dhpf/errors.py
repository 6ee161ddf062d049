"""The one exception that a user's own input can cause, and the rules for texts that people are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

_WORD = re.compile(r"""[^\s"']+""")
_BEGIN = re.compile(r":/{1,2}|endpoint_override=")
"""After these a user and a password may come; a URI taken for a path has lost a slash."""

_MOST = 500
"""Characters that a user and a password have together; a bound on the work that a hostile text makes."""

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, what changes the order in which it writes, and bytes of names that are no text."""

_QUERY = re.compile(
    r"(?P<name>[?&][\w.-]{0,40}(?:passw|pwd|secret|token|access_?key|api_?key|credential|signature)[\w.-]{0,40}=)[^&]+",
    re.IGNORECASE,
)


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one clear sentence: the offending value, where it stands, and the choices or the remedy. It never
    holds a password or a key that a URI brought. The command line prints it without a traceback, and exits with 2.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


def redacted(text: str) -> str:
    """A text in which the users, passwords and keys of all URIs are replaced by dots.

    A URI that this would change is refused where one is given.
    """
    return _WORD.sub(lambda word: _without_secrets(word[0]), text) if ":/" in text else text


def shown(text: str) -> str:
    """A text as people are shown it: without the secrets of URIs, and with control characters written out, as \\u001b.

    Every text that is printed, logged or told MLflow goes through this: names of files, categories, and what a server
    answers may hold anything, and no terminal shall obey them. Tabs and line ends stay. JSON stays JSON.
    """
    return redacted(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def _without_secrets(text: str) -> str:
    kept, begin = "", 0
    while found := _BEGIN.search(text, begin):
        end = found.end() + _length_of_user(text[found.end() : found.end() + _MOST], is_path=found[0] == ":/")
        kept += text[begin : found.end()] + ("..." if end > found.end() else "")
        begin = end
    return _QUERY.sub(r"\g<name>...", kept + text[begin:])


def _length_of_user(text: str, *, is_path: bool) -> int:
    """How many characters of a URI, behind its scheme, are a user and a password; the @ behind them is not counted."""
    host = re.split(r"[/?#&]", text, maxsplit=1)[0]
    end = max(host.rfind("@"), host.rfind("%40"))
    user, colon, rest = text.partition(":")
    has_password = bool(colon) and not re.search(r"[/@?#&]", user)
    if end >= 0 and (has_password or not is_path):
        return end
    has_port = re.match(r"\d{1,5}([/?#&]|$)", rest) is not None
    return max(0, text.find("@")) if has_password and not has_port else 0


def require_no_credentials(what: str, value: object, remedy: str) -> None:
    """Refuses a URI with a user, a password or a key in it, which logs, plans and lists of jobs would show.

    Args:
        what: where it stands, such as an option's name.
        value: a text, or lists and mappings with texts at any depth.
        remedy: how to give the credentials instead.

    Raises:
        InputError: see above.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            require_no_credentials(what, str(key), remedy)
            require_no_credentials(f"{what}.{key}", inner, remedy)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            require_no_credentials(f"{what}[{number}]", inner, remedy)
    elif isinstance(value, str):
        is_uri = re.match(r"\w[\w+.-]*://", value) is not None  # whole: a password may hold spaces and quotes
        kept = _without_secrets(value) if is_uri else redacted(value)
        if kept != value:
            raise InputError(f"{what} {kept!r}: holds credentials, which logs would show; {remedy}")
