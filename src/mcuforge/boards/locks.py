"""Exclusive use of a board: a lock the kernel drops when its holder dies."""

import contextlib
import fcntl
import getpass
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mcuforge.boards.inventory import Instance
from mcuforge.errors import BoardError

_POLL_S = 0.2
_MAX_HOLDER = 500
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW  # in a directory everybody may write to


def directory() -> Path:
    """Where lock files are: one place for all users of the machine, whatever TMPDIR they have."""
    shared = Path("/run/lock")
    return shared if os.access(shared, os.W_OK) else Path("/tmp")


def _path(instance: Instance) -> Path:
    return directory() / f"mcuforge-{re.sub(r'[^A-Za-z0-9._-]', '_', instance.id)}.lock"


def _try(instance: Instance) -> int | None:
    """A descriptor that holds the lock, or None while somebody else does."""
    path = _path(instance)
    try:
        # Not O_CREAT at once: in a directory with the sticky bit the kernel refuses that for a
        # file of another user (fs.protected_regular).
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL)
            os.fchmod(descriptor, 0o666)
            os.close(descriptor)
        descriptor = os.open(path, _OPEN)
    except OSError as error:
        raise BoardError(f"cannot open the lock {path}: {error.strerror}", "remove it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    holder = f"{_user()}, process {os.getpid()}, since {time.strftime('%F %T')}"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return descriptor


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def holder(instance: Instance) -> str:
    """Who holds the board: user, process and since when; empty if it is free."""
    try:
        descriptor = os.open(_path(instance), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, _MAX_HOLDER, 0).decode("utf-8", "replace")
            return " ".join(text.split()) or "somebody"
        return ""
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def acquire(
    instances: Sequence[Instance],
    timeout_s: float,
    on_wait: Callable[[str], None] = lambda message: None,
) -> Iterator[Instance]:
    """Hold the first instance of a pool that is free; a QEMU of our own needs no lock.

    Args:
        instances: of one type, in order of preference.
        on_wait: is told once who holds the boards, when there is a wait.

    Raises BoardError if none is free within `timeout_s`.
    """
    for instance in instances:
        if instance.started_by_us:
            yield instance
            return
    deadline = time.monotonic() + timeout_s
    told = False
    while True:
        for instance in instances:
            descriptor = _try(instance)
            if descriptor is None:
                continue
            try:
                yield instance
            finally:
                os.close(descriptor)
            return
        busy = "; ".join(f"{i.board} {i.id} is held by {holder(i)}" for i in instances)
        if time.monotonic() > deadline:
            raise BoardError(f"no board became free in {timeout_s:.0f} s: {busy}")
        if not told:
            on_wait(f"waiting for a board: {busy}")
            told = True
        time.sleep(_POLL_S)
