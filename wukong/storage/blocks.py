"""Blocks of memory without a name: making them, and mapping pieces of them. Not who has which: see `pool`.

A block is a `memfd`, or an unlinked file on disk; both sides know it by a number and by a descriptor that was passed
along. A value is a piece of a block.

A piece is read by mapping it copy-on-write: nothing is copied, it may be written to, and what is written is private.
With the last view of it the mapping ends, and that has to be said, since only then the block may be used again. A
process that has been forked since is not the only one that may look at what it had mapped: such a piece ends in doubt.
"""

import errno
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

#: Pieces begin at multiples of this many bytes: a mapping can begin nowhere else.
GRAIN: Final = mmap.ALLOCATIONGRANULARITY

_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(before=_forked)


class Piece(NamedTuple):
    """Where a value lies: number of a block, and bytes from where. What is sent instead of the value."""

    block: int
    offset: int
    size: int


def rounded(nbytes: int, grain: int = GRAIN) -> int:
    """Return the next multiple of `grain`."""
    return -(-nbytes // grain) * grain


def make_in_memory(nbytes: int) -> int:
    """Return the descriptor of a new block; where there is no `memfd`, of a file.

    Raises
    ------
    OSError
        If there is no descriptor left.
    """
    if not hasattr(os, "memfd_create"):
        return make_on_disk(nbytes, tempfile.gettempdir())
    return _sized(_open(lambda: os.memfd_create("wukong", os.MFD_CLOEXEC)), nbytes)


def make_on_disk(nbytes: int, directory: str) -> int:
    """Return the descriptor of a new file without a name.

    Raises
    ------
    OSError
        If there is no descriptor left, or no room: it is taken at once, so that writing cannot fail.
    """
    return _sized(_open(lambda: _nameless(directory)), nbytes, take=True)


def _nameless(directory: str) -> int:
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):  # not every file system has it
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fd, path = tempfile.mkstemp(prefix="wukong-", dir=directory)
    os.unlink(path)
    return fd


def _open(make: Callable[[], int]) -> int:
    try:
        return make()
    except OSError as error:
        if error.errno != errno.EMFILE or not more_descriptors():
            raise
        return make()


def _sized(fd: int, nbytes: int, take: bool = False) -> int:
    try:
        if take and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, nbytes)
        os.ftruncate(fd, nbytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def expect_descriptors(held: int) -> None:
    """Raise the soft limit if descriptors that are sent to this process might not find room beside those it holds.

    The kernel would drop them, and say so too late.
    """
    import resource

    if held + 512 > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        more_descriptors()


def more_descriptors() -> bool:
    """Raise this process's soft limit of open files to four times as many, if the hard limit lets it.

    Done only when they run out: code that uses `select` cannot handle descriptors from 1024 on.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    more = min(4 * soft, ceiling)
    if more <= soft:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    except (OSError, ValueError):  # macOS has another limit below the hard one
        return False
    return True


class Mapping(mmap.mmap):
    """Memory that says when nobody looks at it any more."""

    _end: tuple[Callable[[int, bool], None], int, int] | None = None  # of one that could not be made

    def __new__(cls, fd: int, piece: Piece, ended: Callable[[int, bool], None]) -> "Mapping":
        """Map `piece` of the block behind `fd` copy-on-write; `fd` is not needed afterwards."""
        access = mmap.ACCESS_COPY
        self = super().__new__(cls, fd, piece.size, access=access, offset=piece.offset, **UNTRACKED)
        self._end = (ended, piece.block, _forks)
        return self

    def __del__(self) -> None:
        if self._end is not None:
            ended, block, forks = self._end
            ended(block, forks != _forks)


# Before 3.13 each mapping keeps a copy of its descriptor.
UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


def read(fd: int, piece: Piece, ended: Callable[[int, bool], None]) -> memoryview:
    """Return a piece of a block, mapped copy-on-write.

    Parameters
    ----------
    fd : int
        The block's descriptor; stays the caller's.
    piece : Piece
        What of it.
    ended : callable
        Called from anywhere, in any thread, when there is no view left, with the number of the block, and True if this
        process has been forked meanwhile, so that there may be views elsewhere. It must not wait for a lock.
    """
    try:
        return memoryview(Mapping(fd, piece, ended))
    except OSError as error:
        if error.errno != errno.EMFILE or not more_descriptors():
            raise
        return memoryview(Mapping(fd, piece, ended))
