"""The one exception that a user's own input can cause."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one clear sentence: the offending value, where it stands, and the choices or the remedy.
    The command line prints it without a traceback and exits with status 2.
    """
