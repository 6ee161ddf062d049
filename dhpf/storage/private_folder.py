"""Folders of this user alone among the machine's temporary files.

Their names can be guessed, so another user could have made one first, and could then write what is read there. Such a
folder is never used.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from dhpf.errors import InputError


def private_folder(use: str, below: str | None = None) -> Path:
    """A folder that nobody but this user may look into, for one use such as "maps"; it is made if it is not there.

    Args:
        below: the folder for temporary files; None for the system's, or $TMPDIR.

    Raises:
        InputError: what is there is no folder, a link, or another user's; or nothing can be made there.
    """
    folder = Path(below or tempfile.gettempdir()) / f"dhpf-{use}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            if stat.S_IMODE(found.st_mode) != 0o700:
                folder.chmod(0o700)
            return folder
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); set TMPDIR to a folder of your own") from error
    raise InputError(
        f"{folder}: is not a folder of this user alone, so others could change what is read there; remove it, or set "
        "TMPDIR to a folder of your own"
    )
