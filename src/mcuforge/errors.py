"""The errors mcuforge raises: one line that says what is wrong, one that says how to fix it."""

import contextlib
import errno
from collections.abc import Collection, Iterator

OPERATOR = "operator "
"""What the place of an operator begins with."""
_LONGEST_MESSAGE = 600
_REASON = 200  # characters of an unexpected error


class McuforgeError(Exception):
    """Base of every error caused by input, configuration or the environment.

    Args:
        message: what is wrong, and where, on one line. Names in it may come from files: what does
            not print is escaped, and a long text loses its middle.
        hint: how to fix it, on one line; empty if the message already says so.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        message = _printable(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ModelError(McuforgeError):
    """A model cannot be obtained, read or compiled."""


class ConfigError(McuforgeError):
    """The configuration is wrong: unknown names, missing keys, impossible combinations."""


class ToolError(McuforgeError):
    """A program mcuforge calls is missing or failed."""


class BoardError(McuforgeError):
    """A board, its emulator, its probe or its serial port did not do what it should."""


def one_line(error: Exception) -> str:
    """What is said of an error that ends a command or a step: one line, whatever it was."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full, cannot write {error.filename or 'the result'}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, McuforgeError) else f"{type(error).__name__}: {text[:_REASON]}"


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Turn every error of the block into a ModelError that names an operator of the model.

    Args:
        where: the operator, as ``operator ADD (operator 3, output tensor 'sum')``; empty if it is
            not known. An error that names an operator already stays as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, McuforgeError | OSError):
            if not where or not isinstance(error, ModelError) or error.message.startswith(OPERATOR):
                raise
            raise ModelError(f"{where}: {error.message}", error.hint) from error
        where = where or "the model"
        raise ModelError(f"{where} cannot be compiled: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an error of another library says, on one line; its kind where that says little.

    TVM and numpy put what is wrong on the last line, behind a trace of C++.
    """
    lines = str(error).strip().splitlines()
    kind = "" if lines and not isinstance(error, LookupError) else type(error).__name__
    return " ".join([kind, *map(str.strip, lines[-1:])]).strip()


def _printable(text: str) -> str:
    half = _LONGEST_MESSAGE // 2
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def known(kind: str, name: str, valid: Collection[str], where: str = "") -> str:
    """The name, if it is a valid one; ConfigError with those that are if it is not.

    Args:
        kind: what it names, as in ``board``.
        where: the file and place that has the name.
    """
    if name not in valid:
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}unknown {kind} '{name}'", f"valid {kind}s: {', '.join(valid)}")
    return name
