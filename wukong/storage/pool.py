"""The blocks of an arena: which are in use and by whom, which may be used again, and how much there may be.

Knows nothing of values and names, and does not lock: the arena does.

A block nobody needs is one of which no extent is left, and which nobody writes to or maps. It is kept to be used again,
best by who has written it before and has it mapped still; or it is dropped: if enough are kept, if it is on disk, and
if it is in doubt, since somebody unknown may see it. Memory of a dropped block goes at once where nobody can look at
it, and with its last mapping where somebody might.
"""

import os
from collections import Counter
from collections.abc import Hashable
from itertools import islice
from tempfile import gettempdir
from typing import Final

from wukong.errors import MemoryLimitReached
from wukong.storage import blocks
from wukong.storage.memory import directory_of_dask, disk_here, memory_here

# Share of the machine's memory, and of the free disk, that is the limit if none is given.
_MEMORY_SHARE: Final = 0.6
_DISK_SHARE: Final = 0.9
# Share of the limit that blocks which are not in use may take.
_KEPT: Final = 1 / 4
# How far back a block that a holder has written before is looked for, among those of one size.
_LOOK_BACK: Final = 16


class Block:
    """A block, and who has to do with it.

    Attributes
    ----------
    id : int
        Its number; never given twice.
    fd : int
    size : int
        Bytes.
    on_disk : bool
    extents : int
        How many there are.
    writer : Hashable or None
        Who may write to it, or has written to it what was not handed in yet.
    due : int
        Pieces its writer has still to hand in; while it is shared, less those handed in already.
    written : set
        Who has written it, and so may have it mapped still.
    readers : Counter
        How many pieces of it each holder has mapped.
    doubt : bool
        Somebody unknown may have it mapped.
    given : bool
        It belongs to the user of the client, and is neither used again nor counted.
    """

    __slots__ = ("doubt", "due", "extents", "fd", "given", "id", "on_disk", "readers", "size", "writer", "written")

    def __init__(self, number: int, fd: int, size: int, on_disk: bool) -> None:
        self.id, self.fd, self.size, self.on_disk = number, fd, size, on_disk
        self.extents = self.due = 0
        self.writer: Hashable | None = None
        self.written: set[Hashable] = set()
        self.readers: Counter[Hashable] = Counter()
        self.doubt = self.given = False


class Pool:
    """Blocks.

    Parameters
    ----------
    limit, directory, disk_limit
        See `wukong.storage.arena.Arena`.

    Attributes
    ----------
    blocks : dict of int to Block
        All there are, by number.
    in_memory, on_disk, unused : int
        Bytes of blocks that are counted, and of those that are kept to be used again. What else counts as memory may
        be added to `in_memory`.
    made, reused, spilled, dropped : int
        How many blocks were, so far.
    why_on_disk : str
        Why the last one had to be.
    """

    def __init__(self, limit: int | None, directory: str | None, disk_limit: int | None) -> None:
        self.limit = int(memory_here() * _MEMORY_SHARE) if limit is None else limit
        self._directory = directory
        # To find it takes descriptors.
        self._otherwise = gettempdir()
        self.disk_limit = disk_limit
        self.blocks: dict[int, Block] = {}
        self.in_memory = self.on_disk = self.unused = 0
        self.made = self.reused = self.spilled = self.dropped = 0
        self.why_on_disk = ""
        self._free: dict[int, list[Block]] = {}
        self._stale: dict[Hashable, list[int]] = {}
        self._pid = os.getpid()

    @property
    def directory(self) -> str:
        """Where blocks on disk are born now."""
        return self._directory or directory_of_dask() or self._otherwise

    def reserve(self, nbytes: int, holder: Hashable) -> tuple[Block, bool]:
        """Make `holder` the writer of a block, and say whether it has written it before.

        Raises
        ------
        MemoryLimitReached
            If there is room neither in memory nor on disk, or no descriptor is left.
        """
        block = self._recycled(nbytes, holder) or self._new(nbytes)
        warm = holder in block.written
        block.writer = holder
        if not block.on_disk:
            block.written.add(holder)
        return block, warm

    def owe(self, block: Block, pieces: int) -> None:
        """Note that the writer of a block still has to hand in so many pieces more; less, if it is negative."""
        block.due += pieces
        if not block.due:
            block.writer = None
            self.settle(block)

    def stale(self, holder: Hashable) -> tuple[int, ...]:
        """Return the numbers of dropped blocks that `holder` may have mapped, each once."""
        return tuple(self._stale.pop(holder, ()))

    def settle(self, block: Block) -> None:
        """Decide what becomes of a block that perhaps nobody needs any more."""
        if block.extents or block.readers or block.writer is not None or block.id not in self.blocks:
            return
        if block.doubt or block.given or block.on_disk or self.unused + block.size > self.limit * _KEPT:
            self._drop(block)
        else:
            self._free.setdefault(block.size, []).append(block)
            self.unused += block.size

    def give(self, block: Block, end: int) -> None:
        """Take a block out of the pool for good; of its bytes only those before `end` are needed."""
        if not block.given and self._ours():
            self._count(block, -1)
            block.given = True
            os.ftruncate(block.fd, end)

    def shed(self) -> bool:
        """Drop every block that is kept to be used again; return whether there were any."""
        shed = [block for kept in self._free.values() for block in kept]
        self._free.clear()
        self.unused = 0
        for block in shed:
            self._drop(block)
        return bool(shed)

    def gone(self, holder: Hashable) -> None:
        """Forget a holder that died. Children of it may still see what it had mapped."""
        self._stale.pop(holder, None)
        for block in list(self.blocks.values()):
            block.written.discard(holder)
            if holder in block.readers or block.writer is holder:
                block.readers.pop(holder, None)
                block.writer = None if block.writer is holder else block.writer
                block.doubt = True
                self.settle(block)

    def close(self) -> None:
        """Let go of every block. What is mapped stays."""
        for block in self.blocks.values():
            os.close(block.fd)
        self.blocks.clear()
        self._free.clear()
        self._stale.clear()
        self.in_memory = self.on_disk = self.unused = 0

    def full(self, nbytes: int, why: str) -> MemoryLimitReached:
        """Return the error of a value that has no room."""
        return MemoryLimitReached(
            f"no room for a value of {nbytes} bytes: {self.in_memory} bytes are in memory (limit {self.limit}) and "
            f"{self.on_disk} on disk in {self.directory}, and {why}. Use smaller chunks, let results go, raise "
            "memory_limit, or set Dask's `temporary-directory` to a larger disk"
        )

    def _recycled(self, nbytes: int, holder: Hashable) -> Block | None:
        fitting = [kept for size, kept in self._free.items() if nbytes <= size <= 2 * nbytes]
        if not fitting:
            return None
        self.reused += 1
        for kept in fitting:
            for at, block in islice(enumerate(reversed(kept), 1), _LOOK_BACK):
                if holder in block.written:
                    return self._out(kept, -at)
        return self._out(fitting[0], -1)

    def _out(self, kept: list[Block], at: int) -> Block:
        block = kept.pop(at)
        if not kept:
            del self._free[block.size]
        self.unused -= block.size
        return block

    def _new(self, nbytes: int) -> Block:
        size = capacity(nbytes)
        while self._free and self.in_memory + size > self.limit:
            self._drop(self._out(self._free[max(self._free)], 0))
        try:
            if self.in_memory + size <= self.limit:
                block = Block(self.made, blocks.make_in_memory(size), size, False)
            else:
                directory = self.directory
                self._check_disk(nbytes, size, directory)
                block = Block(self.made, blocks.make_on_disk(size, directory), size, True)
                self.spilled += 1
                self.why_on_disk = f"{self.in_memory} bytes in memory and {size} more are over the limit, {self.limit}"
        except OSError as error:
            if self.shed():
                return self._new(nbytes)
            raise self.full(nbytes, f"the system refused another: {error.strerror}") from error
        self.made += 1
        self.blocks[block.id] = block
        self._count(block, 1)
        return block

    def _check_disk(self, nbytes: int, size: int, directory: str) -> None:
        limit = self.disk_limit
        if limit is None:
            limit = int((self.on_disk + disk_here(directory)) * _DISK_SHARE)
        if self.on_disk + size > limit:
            raise self.full(nbytes, f"the limit on disk is {limit}")

    def _drop(self, block: Block) -> None:
        del self.blocks[block.id]
        if not block.given:
            self._count(block, -1)
        self.dropped += 1
        for holder in block.written:
            self._stale.setdefault(holder, []).append(block.id)
        if not block.doubt and self._ours():
            os.ftruncate(block.fd, 0)  # those who have written it may have it mapped still, but nobody looks at it
        os.close(block.fd)

    def _count(self, block: Block, sign: int) -> None:
        if block.on_disk:
            self.on_disk += sign * block.size
        else:
            self.in_memory += sign * block.size

    def _ours(self) -> bool:
        """Whether this is still the process that keeps the books, and not a child with a copy of them."""
        return os.getpid() == self._pid


def capacity(nbytes: int) -> int:
    """Return the size of a block for `nbytes`: an eighth more at most, so that there are few sizes."""
    return blocks.rounded(nbytes, max(blocks.GRAIN, 1 << max(0, nbytes.bit_length() - 4)))
