"""What can go wrong, in four kinds: a mistake, an outage, a damaged artefact, or a bug.

The command line prints the first three as a sentence and exits with ``exit_status``; any
other exception is a bug and leaves a trace.
"""


class Srp4ctrError(Exception):
    """An error that the project foresees; its text says what to do about it."""

    exit_status = 1
    is_printed = False
    """Whether a command has printed the error as a part of its JSON."""


class MistakeError(Srp4ctrError, ValueError):
    """A person's mistake: a wrong option, setting, file or value, or a refused password."""

    exit_status = 2


class OutageError(Srp4ctrError, ConnectionError):
    """Something that may come back does not answer, or is not there yet.

    A broker, the store, the registry, Triton, a file system; labels that have yet to come.
    A command that a person typed ends with it; a long-running process retries.
    """

    exit_status = 3


class ArtifactError(Srp4ctrError, ValueError):
    """A bundle, log file, row or result is damaged, or of an incompatible release."""

    exit_status = 4
