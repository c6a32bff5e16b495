"""Locks that hold between threads, and between the processes of a pack. Which of Dask's are such: `scheduler.dask`.

Each lock is a byte of one nameless file, which the client has and workers ask for. The kernel keeps who holds it: with
a process that dies its locks are free again. A process opens the file anew, since the kernel tells holders apart by
what they have opened; within a process, an ordinary lock keeps threads apart.
"""

import fcntl
import os
import struct
import sys
import threading
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from time import monotonic, sleep
from typing import Any, Final

_SET: Final = getattr(fcntl, "F_OFD_SETLK", None)
_SET_WAITING: Final = getattr(fcntl, "F_OFD_SETLKW", None)

#: Seconds between two looks of a thread that does not wait for ever.
_LONGEST_PAUSE: Final = 0.02

_opening = threading.Lock()
_file = -1


class SharedLock:
    """A lock by name: all of one name in the processes of one pack exclude each other.

    Parameters
    ----------
    name : hashable
        Whatever has the same ``repr`` everywhere.
    inner : Lock, optional
        Keeps threads of this process apart.
    """

    __slots__ = ("__weakref__", "_held", "_inner", "_place")

    def __init__(self, name: Hashable, inner: Any = None) -> None:
        self._inner = threading.Lock() if inner is None else inner
        self._place = int.from_bytes(blake2b(repr(name).encode(), digest_size=7).digest())
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether it was to be had, as `threading.Lock.acquire` does."""
        deadline = None if timeout < 0 else monotonic() + timeout
        if not self._inner.acquire(blocking, timeout):
            return False
        try:
            self._held = not shares or _take(self._place, blocking, deadline)
        except BaseException:
            self._inner.release()
            raise
        if not self._held:
            self._inner.release()
            return False
        return True

    def release(self) -> None:
        """Let go of it."""
        # A thread may have taken the inner lock before this was made around it.
        if self._held and shares:
            self._held = False
            _change(fcntl.F_UNLCK, self._place, True)
        self._inner.release()

    def locked(self) -> bool:
        """Return whether a thread of this process holds it."""
        return bool(self._inner.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


#: Whether locks can be shared between processes here. Where they cannot, there are no process granules either.
shares: Final = _SET is not None and hasattr(os, "memfd_create")


def lend(_: object, __: Sequence[int]) -> tuple[None, list[int]]:
    """Answer a worker that asks for the file."""
    return None, [_opened()]


def _take(place: int, blocking: bool, deadline: float | None) -> bool:
    if blocking and deadline is None:
        return _change(fcntl.F_WRLCK, place, True)
    pause = 1e-4
    while not _change(fcntl.F_WRLCK, place, False):
        if not blocking or (deadline is not None and monotonic() + pause > deadline):
            return False
        sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


def _change(kind: int, place: int, waiting: bool) -> bool:
    operation = _SET_WAITING if waiting else _SET
    assert operation is not None
    try:
        fcntl.fcntl(_opened(), operation, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))
    except BlockingIOError:
        return False
    return True


def _opened() -> int:
    """Return the descriptor of the file, opened by this process."""
    global _file
    if _file < 0:
        with _opening:
            if _file < 0:
                _file = _ask() if _in_worker() else os.memfd_create("wukong-locks", os.MFD_CLOEXEC)
    return _file


def _in_worker() -> bool:
    module = sys.modules.get("wukong.platforms.local.worker")
    return module is not None and module.current is not None


def _ask() -> int:
    from wukong.platforms.local.worker import current

    assert current is not None
    _, (lent,) = current.ask("locks.file")
    try:
        return os.open(f"/proc/self/fd/{lent}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(lent)


def _forked() -> None:
    """Begin anew: what was opened before the fork is the parent's, and its locks would be ours."""
    global _opening, _file
    _opening = threading.Lock()
    if _file >= 0:
        os.close(_file)
        _file = -1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
