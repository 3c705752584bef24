"""The errors mcuforge raises: one line that says what is wrong, one that says how to fix it."""


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
