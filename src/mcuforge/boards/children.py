"""Child processes that never outlive the process that started them."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> Callable[[], None]:
    """A ``preexec_fn`` that has the kernel kill the child when this thread is gone.

    Whatever ends this process, SIGKILL included, ends the child. Note that the thread counts, not
    the process: start children from a thread that lives as long as they shall.
    """
    parent = os.getpid()

    def apply() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return apply
