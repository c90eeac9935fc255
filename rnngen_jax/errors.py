"""The two errors that end a command in plain lines instead of a traceback."""


class UserError(Exception):
    """Something that the user gave does not fit: a flag, a config field, a file, a folder.

    The message says what was given, what is allowed and what to do, in one or two lines.
    Commands print it and exit with code 2.
    """


class RunError(Exception):
    """A run that was well asked for has failed, such as a loss that is no longer finite.

    Commands print the message and exit with code 1.
    """
