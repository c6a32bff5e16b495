"""The arena: large values of all processes of a pack, in memory that they share. Its books, which the client keeps.

    worker  --- reserve 100 MB ------------------>  books     a block that nobody maps, or a new one, and its descriptor
    worker  --- name "7.1": block 3, 0..100 MB -->  books     or: the same piece, as the result of a call
    another --- find "7.1" ---------------------->  books     the piece, the descriptor; noted: `another` maps block 3
    another --- let go of block 3 --------------->  books     its last view has died

What leaves a process is *sealed*: a frame as bytes if it is small, else an `Extent`, a piece of a block. An extent
belongs to whoever has the object, and with it goes the piece. When a block is used again and when it is dropped is the
subject of `pool`; what a worker does, of `holder`.

Beyond the memory limit blocks are born on disk, and do not move. Beyond the disk's there is a typed error.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

from wukong import serialize
from wukong.errors import MemoryLimitReached
from wukong.storage import blocks
from wukong.storage.blocks import Piece
from wukong.storage.pool import Block, Pool
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame
from wukong.storage.writer import INLINE, Place, Wire, Writer

__all__ = ["INLINE", "Arena", "Extent", "Figures", "Sealed", "Wire"]


class Extent:
    """A piece of a block, which stays what it is for as long as this object lives. The client's; it does not travel.

    Attributes
    ----------
    arena : Arena
        Where it is.
    piece : Piece
        What travels.
    """

    __slots__ = ("arena", "piece")

    def __init__(self, arena: "Arena", piece: Piece) -> None:
        self.arena = arena
        self.piece = piece

    def __len__(self) -> int:
        return self.piece.size

    def __del__(self) -> None:
        self.arena._later(Arena._ended, self.piece.block)

    def __reduce__(self) -> Any:
        raise TypeError("an extent belongs to the books of one arena: send what `Arena.lend` makes of it")


#: A frame, or where it lies.
Sealed: TypeAlias = bytes | Extent


class Figures(NamedTuple):
    """What an arena holds, in bytes, and how many blocks were made, used again, born on disk, and dropped so far."""

    in_memory: int
    on_disk: int
    unused: int
    blocks: int
    made: int
    reused: int
    spilled: int
    dropped: int
    why_on_disk: str


class Arena:
    """The books, and the client's own use of the arena. Safe to use from any thread.

    Parameters
    ----------
    limit : int, optional
        Bytes of blocks in memory; 0.6 of what this process may use, if not given.
    directory : str, optional
        Where blocks are that have no room in memory. If not given, they are born where Dask's `temporary-directory`
        says at the time, or in the system's directory for temporary files.
    disk_limit : int, optional
        Bytes of blocks on disk; 0.9 of what would be free there without them, if not given.
    """

    def __init__(self, limit: int | None = None, directory: str | None = None, disk_limit: int | None = None) -> None:
        self._pool = Pool(limit, directory, disk_limit)
        self._names: dict[str, dict[str, Sealed | MemoryLimitReached]] = {}
        self._shared: dict[Hashable, Block] = {}
        self._heard: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._guard = _Guard(self)
        self._writer = Writer(self)

    # What the client itself writes and reads

    def seal(self, value: Any) -> Sealed:
        """Pack a value, or take a `serialize.Frame`, so that it can be kept and lent.

        Raises
        ------
        MemoryLimitReached
            If there is room neither in memory nor on disk.
        Exception
            Whatever pickling raises.
        """
        return self.seal_frame(value if isinstance(value, serialize.Frame) else serialize.dumps(value))

    def seal_frame(self, frame: Frame) -> Sealed:
        """Write a frame to the arena if it is large; see `seal`."""
        return self.take(self, self._writer.seal(frame))

    def holds(self, sealed: Sealed) -> bool:
        """Whether this arena can lend it: it is small, or lies here and not in another."""
        return isinstance(sealed, bytes) or sealed.arena is self

    def open(self, sealed: Sealed) -> Buffer:
        """Return the frame: bytes, or a new writable view of shared memory, to be loaded once."""
        if isinstance(sealed, bytes):
            return sealed
        with self._guard:
            block = self._pool.blocks[sealed.piece.block]
            block.readers[self] += 1
        try:
            try:
                return blocks.read(block.fd, sealed.piece, self._client_let_go)
            except OSError:
                with self._guard:
                    self._pool.shed()
                return blocks.read(block.fd, sealed.piece, self._client_let_go)
        except OSError as error:
            self.let_go(self, [block.id])
            raise self._pool.full(len(sealed), f"the system refused to map it: {error.strerror}") from error

    def unseal(self, sealed: Sealed) -> Any:
        """Load a value. Arrays in it are views of shared memory, writable; what is written is not seen elsewhere."""
        return serialize.loads(self.open(sealed))

    def give(self, sealed: Sealed) -> Any:
        """Load a value for good: its block is taken out of the pool, so that the value owns its memory.

        What has less than half of its block is copied.
        """
        if isinstance(sealed, Extent):
            with self._guard:
                block = self._pool.blocks[sealed.piece.block]
                whole = 2 * len(sealed) >= block.size
                if whole:
                    self._pool.give(block, sealed.piece.offset + len(sealed))
            if not whole:
                return serialize.loads(bytearray(self.open(sealed)))
        return self.unseal(sealed)

    # What holders do; the client is one, by the name of the arena itself

    def assign(self, holder: Hashable, nbytes: int, shared: bool = False, written: int = 0) -> Place:
        """Give a block to a holder to write to. Nobody else may until the holder's piece of it is taken.

        Parameters
        ----------
        holder : Hashable
        nbytes : int
        shared : bool
            For several pieces: until the holder reserves the next shared block, and has handed in all it wrote to this.
        written : int
            If shared, how many pieces were written to the last shared block.

        Returns
        -------
        Place
            Its descriptor stays the arena's.

        Raises
        ------
        MemoryLimitReached
            If there is room neither in memory nor on disk, or no descriptor is left.
        """
        with self._guard:
            block, warm = self._pool.reserve(nbytes, holder)
            block.due = 0 if shared else 1
            if shared:
                last, self._shared[holder] = self._shared.get(holder), block
                if last is not None:
                    self._pool.owe(last, written)
            return Place(block.id, block.fd, block.size, warm, self._pool.stale(holder))

    def take(self, holder: Hashable, wire: Wire) -> Sealed:
        """Take over what a holder has sealed, when its message comes."""
        if isinstance(wire, bytes):
            return wire
        with self._guard:
            block = self._pool.blocks[wire.block]
            block.extents += 1
            block.due -= 1
            if not block.due and self._shared.get(holder) is not block:
                block.writer = None
            return Extent(self, wire)

    def lend(self, holder: Hashable, sealed: Sequence[Sealed]) -> tuple[list[Wire], list[int]]:
        """Return what to send to a holder so that it can open `sealed`, and with which descriptors.

        The descriptors stay the arena's. Each piece counts as mapped until `let_go`: the message has to be sent, or the
        holder be `gone`; and `sealed` has to live until then.
        """
        wires: list[Wire] = []
        fds: dict[int, int] = {}
        with self._guard:
            for one in sealed:
                if isinstance(one, bytes):
                    wires.append(one)
                else:
                    block = self._pool.blocks[one.piece.block]
                    block.readers[holder] += 1
                    fds[block.id] = block.fd
                    wires.append(one.piece)
        return wires, list(fds.values())

    def let_go(self, holder: Hashable, numbers: Sequence[int], doubted: Sequence[int] = ()) -> None:
        """Note that a holder has ended one mapping of each of these blocks; of the doubted, after it was forked."""
        with self._guard:
            for number in numbers:
                self._let_go(number, holder, False)
            for number in doubted:
                self._let_go(number, holder, True)

    def gone(self, holder: Hashable) -> None:
        """Note that a holder died, all of its messages having been read. What it sealed stays."""
        with self._guard:
            self._shared.pop(holder, None)
            self._pool.gone(holder)

    # Names

    def name(self, job: str, name: str, sealed: Sealed) -> None:
        """Keep a value under a name. The same name again is the same value again.

        Small values stay here up to the memory limit, and go to disk beyond it. If there is no room there either,
        `find` will say so: who sends a value does not wait for an answer.
        """
        kept: Sealed | MemoryLimitReached = sealed
        if isinstance(sealed, bytes) and self._pool.in_memory + len(sealed) > self._pool.limit:
            try:
                kept = self.take(self, self._writer.write(sealed, len(sealed)))
            except MemoryLimitReached as error:
                kept = error
        with self._guard:
            values = self._names.setdefault(job, {})
            if name in values:
                self._forget(values[name])
            if isinstance(kept, bytes):
                self._pool.in_memory += len(kept)
            values[name] = kept

    def find(self, job: str, names: Sequence[str]) -> list[Sealed | None]:
        """Return values by name, None for those that are not there.

        Raises
        ------
        MemoryLimitReached
            If there was no room for one of them.
        """
        found: list[Sealed | None] = []
        with self._guard:
            values = self._names.get(job, {})
            for name in names:
                value = values.get(name)
                if isinstance(value, MemoryLimitReached):
                    raise value
                found.append(value)
        return found

    def delete(self, job: str, names: Sequence[str]) -> None:
        """Forget values."""
        with self._guard:
            values = self._names.get(job, {})
            for name in names:
                if name in values:
                    self._forget(values.pop(name))

    def clear(self, job: str) -> None:
        """Forget every value of a job."""
        with self._guard:
            for value in self._names.pop(job, {}).values():
                self._forget(value)

    def put(self, job: str, name: str, frame: Frame) -> None:
        """Seal a frame and keep it under a name."""
        self.name(job, name, self.seal_frame(frame))

    def get(self, job: str, names: Sequence[str]) -> list[Buffer | None]:
        """Open values by name; None for those that are not there."""
        return [None if sealed is None else self.open(sealed) for sealed in self.find(job, names)]

    def figures(self) -> Figures:
        """Return what there is now, and what was done."""
        with self._guard:
            pool = self._pool
            now = (pool.in_memory, pool.on_disk, pool.unused, len(pool.blocks))
            return Figures(*now, pool.made, pool.reused, pool.spilled, pool.dropped, pool.why_on_disk)

    def forget(self) -> None:
        """Open the lock, in a forked child: the thread that had it is not here."""
        self._guard.lock._at_fork_reinit()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Let go of everything. What the client has loaded stays."""
        self._writer.close()
        with self._guard:
            self._names.clear()
            self._shared.clear()
            self._pool.close()

    # The client as a writer: see `writer.Books`

    def reserve(self, nbytes: int, shared: bool = False, written: int = 0) -> Place:
        """Find room for the client."""
        return self.assign(self, nbytes, shared, written)

    def written(self, fd: int) -> None:
        """Nothing: the descriptor stayed the arena's."""

    def discard(self, piece: Piece) -> None:
        """Forget a piece that the client was to write."""
        self.take(self, piece)

    # Within the lock

    def _forget(self, value: Sealed | MemoryLimitReached) -> None:
        if isinstance(value, bytes):
            self._pool.in_memory -= len(value)

    def _let_go(self, number: int, holder: Hashable, doubt: bool) -> None:
        block = self._pool.blocks.get(number)
        if block is not None and holder in block.readers:
            block.doubt |= doubt
            block.readers[holder] -= 1
            if not block.readers[holder]:
                del block.readers[holder]
                self._pool.settle(block)

    def _ended(self, number: int) -> None:
        block = self._pool.blocks.get(number)
        if block is not None:
            block.extents -= 1
            self._pool.settle(block)

    # What finalisers say. They run anywhere, also in a thread that has the lock, so they must not wait for it.

    def _client_let_go(self, number: int, doubt: bool) -> None:
        self._later(Arena._let_go, number, self, doubt)

    def _later(self, what: Any, *args: Any) -> None:
        self._heard.append((what, args))
        self._catch_up()

    def _catch_up(self) -> None:
        while self._heard and self._guard.lock.acquire(blocking=False):  # else: whoever has it comes here afterwards
            try:
                while self._heard:
                    what, args = self._heard.popleft()
                    what(self, *args)
            finally:
                self._guard.lock.release()


class _Guard:
    """The lock of an arena. What finalisers said while it was held is heard when it is released."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self.lock = Lock()

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        self._arena._catch_up()
