"""The base of every error that is meant for the person at the terminal."""


class CuesheetError(Exception):
    """Says what was found, where, what was expected and what to do; shown without a traceback."""


class SurroundingsError(CuesheetError):
    """The run's surroundings failed (server, key, settings); the episode is not the cause."""


class DiskFullError(SurroundingsError, OSError):
    """The disk is full or the user's quota is used up; the message names the path."""
