"""The one exception type for mistakes a user can mend."""


class UserError(Exception):
    """Bad input, told in one clear sentence: which file, what was expected, what was found, what to do.

    ``run.py`` prints the message without a traceback and exits with code 2.
    """
