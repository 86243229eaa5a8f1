"""The tree of errors that users may see. Torch-free.

PipoError            every error we raise on purpose; carries a message that states the value, the rule, the way out
├─ BadInput          the user's input breaks a rule; command line exit code 2
│  ├─ BadModel       a model folder that cannot be used as it is
│  └─ BadRecord      a record file that cannot be read
├─ DaemonError       the daemon could not be reached, or it stopped; exit code 3
├─ JobFailed         the job ended with an error; exit code 1
└─ Cancelled         the job was cancelled on request; exit code 130
"""

from __future__ import annotations


class PipoError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class BadInput(PipoError):
    """Input that breaks a rule. The message states the value, the rule and the way out."""

    exit_code = 2


class BadModel(BadInput):
    """A model folder that is missing something, holds something unexpected, or cannot be trusted."""


class BadRecord(BadInput):
    """A record or task file that is empty, torn in the middle, or of another schema."""


class DaemonError(PipoError):
    """The daemon is not reachable, or went away while a job ran."""

    exit_code = 3


class JobFailed(PipoError):
    """A job ended with an error of its own."""


class Cancelled(PipoError):
    """The job was asked to stop; finished items are kept."""

    exit_code = 130


ERRORS_BY_NAME = {c.__name__: c for c in (BadInput, BadModel, BadRecord, DaemonError, JobFailed, Cancelled)}
