"""The errors mcuforge raises: one line that says what is wrong, one that says how to fix it."""

import errno

_REASON = 200  # characters of an unexpected error


class McuforgeError(Exception):
    """Base of every error caused by input, configuration or the environment.

    Args:
        message: what is wrong, and where, on one line.
        hint: how to fix it, on one line; empty if the message already says so.
    """

    def __init__(self, message: str, hint: str = "") -> None:
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
