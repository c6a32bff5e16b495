"""Writing values to blocks. Not where the blocks come from.

A fresh block is written with `pwrite`, which is quicker than faulting its pages in one by one. One that this process
has written before is mapped, and stays so: from then on filling it costs what copying memory costs. Small values follow
each other in one block.
"""

import mmap
import os
import sys
from collections import OrderedDict
from threading import Lock
from typing import Final, NamedTuple, Protocol, TypeAlias

from wukong.errors import MemoryLimitReached
from wukong.storage.blocks import UNTRACKED, Piece, rounded
from wukong.storage.values.base import Frame, size_of

#: Frames up to this many bytes are sent and kept as they are. From process to process 64 KiB take 100 us so, and 170 us
#: in a block (2026-11, 2 busy cores); what no longer fits into a packet of a channel takes longer than in a block.
INLINE: Final = 64 * 1024
#: Values up to this many bytes share a block with others.
SHARED: Final = 512 * 1024
#: Bytes of a block that is shared.
OPEN: Final = 4 * 1024 * 1024
# Blocks a process keeps mapped for writing.
_WARM: Final = 64

#: A frame, or where it lies, as it travels. Pieces come with the descriptors of their blocks, in the order of their
#: first piece.
Wire: TypeAlias = bytes | Piece


class Place(NamedTuple):
    """Room for a value: a whole block, of which the one who asked is the only writer until it hands in a piece.

    Attributes
    ----------
    block : int
    fd : int
        Its descriptor, until `Books.written`.
    size : int
        Bytes of the block.
    warm : bool
        The one who asked has written this block before.
    stale : tuple of int
        Blocks that there are no longer, and that it had written.
    """

    block: int
    fd: int
    size: int
    warm: bool
    stale: tuple[int, ...]


class Books(Protocol):
    """Who keeps account of the blocks."""

    def reserve(self, nbytes: int, shared: bool = False, written: int = 0) -> Place:
        """Find room; if `shared`, for many values, `written` having gone to the last room of this kind.

        Raises
        ------
        MemoryLimitReached
            If there is none.
        """

    def written(self, fd: int) -> None:
        """Take the descriptor back."""

    def discard(self, piece: Piece) -> None:
        """Say that what was to be written there is not."""


class Writer:
    """What one process writes to blocks. Safe to use from any thread.

    Parameters
    ----------
    books : Books
        Who gives out blocks.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._warm: OrderedDict[int, mmap.mmap] = OrderedDict()
        self._shared: tuple[Place, mmap.mmap | None] | None = None
        self._used = self._pieces = 0
        self._lock = Lock()

    def seal(self, frame: Frame) -> Wire:
        """Write `frame` if it is large; see `write`."""
        nbytes = size_of(frame)
        return as_bytes(frame) if nbytes <= INLINE else self.write(frame, nbytes)

    def write(self, frame: Frame, nbytes: int) -> Piece:
        """Write `frame`, which has `nbytes` bytes, and return where it lies.

        Raises
        ------
        MemoryLimitReached
            If there is no room.
        """
        if nbytes > SHARED:
            with self._lock:
                place, mapping = self._reserve(nbytes)
            try:
                return self._fill(place, mapping, 0, frame, nbytes)
            finally:
                self._books.written(place.fd)
        with self._lock:
            if self._shared is None or self._used + nbytes > self._shared[0].size:
                self._leave_shared()
                self._shared, self._used, self._pieces = self._reserve(OPEN, True, self._pieces), 0, 0
            place, mapping = self._shared
            at = self._used
            self._used = rounded(at + nbytes)
            self._pieces += 1
            # With the lock: another thread may come to the end of this block, and close it.
            return self._fill(place, mapping, at, frame, nbytes)

    def close(self) -> None:
        """Let go of every block."""
        with self._lock:
            self._leave_shared()
            self._warm.clear()

    def _leave_shared(self) -> None:
        if self._shared is not None:
            self._books.written(self._shared[0].fd)
            self._shared = None

    def _reserve(self, nbytes: int, shared: bool = False, written: int = 0) -> tuple[Place, mmap.mmap | None]:
        place = self._books.reserve(nbytes, shared, written)
        for block in place.stale:
            self._warm.pop(block, None)
        if not place.warm:
            return place, None
        mapping = self._warm.pop(place.block, None)
        if mapping is None:
            try:
                mapping = mmap.mmap(place.fd, place.size, **UNTRACKED)
            except OSError:  # no descriptor or no mapping is left: it can be written without one
                return place, None
        self._warm[place.block] = mapping
        if len(self._warm) > _WARM:
            self._warm.popitem(last=False)
        return place, mapping

    def _fill(self, place: Place, mapping: mmap.mmap | None, at: int, frame: Frame, nbytes: int) -> Piece:
        piece = Piece(place.block, at, nbytes)
        try:
            for part in [frame] if isinstance(frame, bytes | bytearray | memoryview) else frame:
                source = memoryview(part).cast("B")
                if mapping is None:
                    _write_all(place.fd, source, at)
                else:
                    copy(memoryview(mapping)[at : at + source.nbytes], source)
                at += source.nbytes
        except BaseException as error:
            self._books.discard(piece)
            if not isinstance(error, OSError):
                raise
            raise MemoryLimitReached(
                f"a value of {nbytes} bytes could not be written to block {place.block}: {error.strerror}. "
                "Use smaller chunks, or let results go"
            ) from error
        return piece


def _write_all(fd: int, source: memoryview, at: int) -> None:
    while source:  # one call writes 2 GB at most
        written = os.pwrite(fd, source, at)
        at += written
        source = source[written:]


def copy(into: memoryview, source: memoryview) -> None:
    """Copy bytes, with other threads running meanwhile if NumPy is there to do so and there is much to copy."""
    numpy = sys.modules.get("numpy") if source.nbytes > 64 * 1024 else None
    if numpy is None:
        into[:] = source
    else:
        numpy.copyto(numpy.frombuffer(into, "u1"), numpy.frombuffer(source, "u1"))


def as_bytes(frame: Frame) -> bytes:
    """Return a frame in one piece."""
    return bytes(frame) if isinstance(frame, bytes | bytearray | memoryview) else b"".join(frame)
