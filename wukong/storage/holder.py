"""The arena as a worker sees it: it seals and opens values, and tells the client's books. It keeps none itself.

The worker reaches the client through two callables: `ask(op, *args, fds=()) -> (reply, fds)` waits for an answer, and
`tell(op, *args, fds=())` does not. Both are in order: what was told before a question, or before a result, is known by
then. `serve` says what the client answers to each op.

What finalisers have to say is kept until the next message. Threads may share this if they may share `ask` and `tell`.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

from wukong import serialize
from wukong.errors import MemoryLimitReached
from wukong.storage import blocks
from wukong.storage.arena import Arena
from wukong.storage.blocks import Piece
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame
from wukong.storage.writer import Place, Wire, Writer

#: Names in one question: no message can carry more than 253 descriptors.
_NAMES: Final = 200

Answer: TypeAlias = tuple[Any, Sequence[int]] | None


class Ask(Protocol):
    """A request with an answer."""

    def __call__(self, op: str, *args: Any, fds: Sequence[int] = ()) -> tuple[Any, Sequence[int]]:
        """Return the reply and the descriptors that came with it, which are the caller's."""


class Tell(Protocol):
    """A message without an answer."""

    def __call__(self, op: str, *args: Any, fds: Sequence[int] = ()) -> None:
        """Send."""


class Holder:
    """A worker's side of the arena.

    Parameters
    ----------
    ask, tell : callable
        The way to the client.
    """

    def __init__(self, ask: Ask, tell: Tell) -> None:
        self._ask = ask
        self._tell = tell
        self._writer = Writer(self)
        self._ended: deque[tuple[int, bool]] = deque()
        self._mapped = 0

    def seal(self, value: Any) -> Wire:
        """Return what to send to the client, which has to `take` it; see `Arena.seal`."""
        return self.seal_frame(value if isinstance(value, serialize.Frame) else serialize.dumps(value))

    def seal_frame(self, frame: Frame) -> Wire:
        """Write a frame to the arena if it is large; see `seal`."""
        return self._writer.seal(frame)

    def open(self, wires: Sequence[Wire], fds: Sequence[int]) -> list[Buffer]:
        """Return the frames that the client lent: bytes, or writable views of shared memory, to be loaded once.

        The descriptors are closed.

        Raises
        ------
        MemoryLimitReached
            If this process can map no more.
        """
        pieces = [wire for wire in wires if isinstance(wire, Piece)]
        by_block = dict(zip(dict.fromkeys(piece.block for piece in pieces), fds, strict=True))
        self._mapped += len(pieces)
        blocks.expect_descriptors(self._mapped)
        frames: list[Buffer] = []
        try:
            for wire in wires:
                if isinstance(wire, Piece):
                    frames.append(blocks.read(by_block[wire.block], wire, self._let_go))
                else:
                    frames.append(wire)
        except OSError as error:
            mapped = sum(isinstance(frame, memoryview) for frame in frames)
            self._ended.extend((piece.block, False) for piece in pieces[mapped:])
            raise MemoryLimitReached(
                f"a process with {self._mapped} values of its pack mapped can map no more: {error.strerror}. "
                "Use larger chunks, let results go, or raise `ulimit -n`"
            ) from error
        finally:
            for fd in fds:
                os.close(fd)
        return frames

    def unseal(self, wires: Sequence[Wire], fds: Sequence[int]) -> list[Any]:
        """Load values that the client lent. Arrays in them are views of shared memory, writable, and private."""
        return [serialize.loads(frame) for frame in self.open(wires, fds)]

    def flush(self) -> None:
        """Tell which mappings have ended. Call it before the worker is idle, or memory waits for the next value."""
        if self._ended:
            numbers: tuple[list[int], list[int]] = ([], [])
            with suppress(IndexError):
                while True:
                    number, doubt = self._ended.popleft()
                    numbers[doubt].append(number)
            self._mapped -= len(numbers[0]) + len(numbers[1])
            self._tell("arena.let_go", *numbers)

    def put(self, job: str, name: str, frame: Frame) -> None:
        """Keep a value in the books under a name."""
        wire = self.seal_frame(frame)
        self.flush()
        self._tell("arena.name", job, name, wire)

    def get(self, job: str, names: Sequence[str]) -> list[Buffer | None]:
        """Open values by name; None for those that are not there."""
        self.flush()
        found: list[Buffer | None] = []
        for at in range(0, len(names), _NAMES):
            reply, fds = self._ask("arena.find", job, list(names[at : at + _NAMES]))
            if isinstance(reply, MemoryLimitReached):
                raise reply
            opened = iter(self.open([wire for wire in reply if wire is not None], fds))
            found += [None if wire is None else next(opened) for wire in reply]
        return found

    def delete(self, job: str, names: Sequence[str]) -> None:
        """Forget values."""
        self.flush()
        self._tell("arena.delete", job, list(names))

    def clear(self, job: str) -> None:
        """Forget every value of a job."""
        self.flush()
        self._tell("arena.clear", job)

    def reserve(self, nbytes: int, shared: bool = False, written: int = 0) -> Place:
        """See `writer.Books`."""
        self.flush()
        reply, fds = self._ask("arena.reserve", nbytes, shared, written)
        if isinstance(reply, MemoryLimitReached):
            raise reply
        block, size, warm, stale = reply
        return Place(block, fds[0], size, warm, stale)

    def written(self, fd: int) -> None:
        """See `writer.Books`."""
        os.close(fd)

    def discard(self, piece: Piece) -> None:
        """See `writer.Books`; also for what was sealed and cannot be sent."""
        self._tell("arena.discard", piece)

    def close(self) -> None:
        """Let go of every block this worker has written to."""
        self._writer.close()

    def _let_go(self, number: int, doubt: bool) -> None:
        self._ended.append((number, doubt))


def serve(arena: Arena) -> dict[str, Callable[..., Answer]]:
    """Return what the client answers: by op, `handler(holder, fds, *args) -> None | (reply, fds)`.

    The descriptors in an answer stay the arena's.
    """

    def reserve(holder: Any, _: Sequence[int], nbytes: int, shared: bool, written: int) -> Answer:
        try:
            place = arena.assign(holder, nbytes, shared, written)
        except MemoryLimitReached as error:
            return error, ()
        return (place.block, place.size, place.warm, place.stale), (place.fd,)

    def find(holder: Any, _: Sequence[int], job: str, names: Sequence[str]) -> Answer:
        try:
            found = arena.find(job, names)
        except MemoryLimitReached as error:
            return error, ()
        wires, fds = arena.lend(holder, [sealed for sealed in found if sealed is not None])
        lent = iter(wires)
        return [None if sealed is None else next(lent) for sealed in found], fds

    def name(holder: Any, _: Sequence[int], job: str, name: str, wire: Wire) -> None:
        arena.name(job, name, arena.take(holder, wire))

    def discard(holder: Any, _: Sequence[int], piece: Piece) -> None:
        arena.take(holder, piece)

    return {
        "arena.reserve": reserve,
        "arena.find": find,
        "arena.name": name,
        "arena.delete": lambda _holder, _fds, job, names: arena.delete(job, names),
        "arena.clear": lambda _holder, _fds, job: arena.clear(job),
        "arena.discard": discard,
        "arena.let_go": lambda holder, _fds, numbers, doubted: arena.let_go(holder, numbers, doubted),
    }
