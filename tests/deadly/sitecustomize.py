"""Sends a signal to whatever Python process opens an image called deadly: a decoder that crashes, or that hangs.

Python imports this module when it starts where the fixture `deadly_image` has put this folder on PYTHONPATH. A file
beside the image holds the signal's number and the path of the file to which the process's id is written.
"""

import os
import signal
import sys


def _obey(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    path = os.fspath(arguments[0])
    if isinstance(path, str) and os.path.basename(path).startswith("deadly."):  # noqa: PTH119
        descriptor = os.open(os.path.dirname(path) + "/.order", os.O_RDONLY)  # noqa: PTH120
        number, log = os.read(descriptor, 4096).decode().split(" ", 1)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        os.kill(os.getpid(), signal.Signals(int(number)))


sys.addaudithook(_obey)
