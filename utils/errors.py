"""The one exception type for mistakes that a user can correct."""


class UserError(Exception):
    """Bad input, described in one clear sentence: which file, what was expected, what was found, what to do.

    ``run.py`` prints the message without a traceback and exits with code 2.
    """
