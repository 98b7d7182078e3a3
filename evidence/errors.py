"""The one error tree of the project.

    WaybillError
    ├── PermanentError        the same input always fails: dead letter, never a retry
    │   ├── ConfigError       a setting, a file or a flag is wrong; the program does not start (exit code 2)
    │   ├── RecordError       a record breaks its contract
    │   └── StoreError        the evidence store is not what it says it is
    │       ├── AlreadyThere  (evidence.files) a file is there that was to be created
    │       ├── NotThere      (evidence.files) a file is not there
    │       ├── PartitionHeld (evidence.disk) another process writes this partition
    │       ├── NoteError     (evidence.log) a note is none, or is not signed as it has to be
    │       ├── ProofError    (evidence.log) a proof does not hold
    │       └── LogForked, LogShrunk (evidence.log) a log shows another history than before, or a shorter one
    └── RetryableError        the same input may succeed later; the position is kept
        ├── UnavailableError  a part that is needed does not answer
        └── Fenced            (evidence.store) another writer has taken the log over

Other packages add leaves (`inference.errors`, `streams.errors`), never another root.
"""

from __future__ import annotations

from traceback import extract_tb


class WaybillError(Exception):
    """Anything that Waybill itself raises; its text says what was wrong, where, and what to do."""


class PermanentError(WaybillError):
    """The same input always fails: the caller sends it to the dead letters and goes on."""


class ConfigError(PermanentError):
    """A setting, a file or a flag is wrong; the program stops before it touches data."""


class RecordError(PermanentError):
    """A record breaks its contract.

    Attributes:
        code: a stable, lower-case reason code such as `unknown_field`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StoreError(PermanentError):
    """The evidence store is not what it says it is; nothing is written until a person has looked."""


class RetryableError(WaybillError):
    """The same input may succeed later: the caller keeps the position and tries again."""


class UnavailableError(RetryableError):
    """A part that is needed (broker, model server, disk) does not answer."""


def kind_and_place(error: BaseException) -> str:
    """Tell an unexpected error for a log: its kind and where it came from, without its text, which may quote input."""
    frames = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in extract_tb(error.__traceback__)]
    return " < ".join([type(error).__name__, *reversed(frames)])
