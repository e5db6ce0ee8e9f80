"""The error of something that is needed and not there yet, but comes by itself."""


class OutageError(ValueError):
    """A server does not answer, or there are no labels yet; says which, and what to do.

    A command that a person typed ends with it; a process that runs on tries again.
    """
