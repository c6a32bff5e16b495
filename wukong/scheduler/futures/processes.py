"""Calls that run in processes, as a lane: their inputs stay where they are, and values come back sealed.

All calls are handed over as soon as their inputs are there, packed as they are then; in what order they run is decided
by the same turns as in threads, and one that no worker has begun can be withdrawn.
"""

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

from wukong import serialize
from wukong.errors import CannotTravel, ClientClosed
from wukong.platforms.local.called import SMALL, Input
from wukong.scheduler.futures.call import READY, Call, fill
from wukong.scheduler.futures.lanes import Ticks, here
from wukong.travel import check_travels

if TYPE_CHECKING:
    from wukong.platforms.local.calls import Calls
    from wukong.platforms.local.pack import Pack
    from wukong.scheduler.futures.engine import Engine


class Rank:
    """What calls are ordered by where they wait: higher priority, then the earlier turn."""

    __slots__ = ("_order",)

    def __init__(self, priority: float, tag: float) -> None:
        self._order = -priority, tag

    def __neg__(self) -> tuple[float, float]:
        return self._order


class Processes:
    """The workers of a pack, to an engine.

    Parameters
    ----------
    engine : Engine
        Is told what came of calls.
    start : callable
        Returns the pack; called when the first call comes.
    """

    working = 0
    lends_itself = False

    def __init__(self, engine: "Engine", start: "Callable[[], Pack]") -> None:
        self._engine = engine
        self._start = start
        self._starting = Lock()
        self._pack: Pack | None = None
        self._worn: list[Pack] = []
        self._calls: Calls | None = None
        self._coming: deque[Call] = deque()
        self._handles: dict[Call, Any] = {}
        self._ticks = Ticks()

    # As a lane; the engine's lock is held

    def push(self, call: Call) -> None:
        """Have a call run; `begin` has to be called when the lock is released."""
        self._ticks.tick(call)
        self._coming.append(call)

    def put_back(self, call: Call) -> None:
        """Have a call run that has run before."""
        self._coming.append(call)

    def claim(self, _: Call) -> bool:
        """Refuse: nobody here can run it."""
        return False

    def kill(self, call: Call) -> bool:
        """End the process that runs a call; return whether one does."""
        handle = self._handles.get(call)
        if handle is None or self._calls is None:
            return False
        self._calls.kill(handle)
        return True

    def where(self, call: Call) -> str:
        """Return where a call runs, for people."""
        member = getattr(self._handles.get(call), "member", None)
        return "a worker process" if member is None else f"worker process {member.pid}"

    def excuse(self, call: Call) -> None:
        """Have a call wait for no memory any more."""
        handle = self._handles.get(call)
        if handle is not None and self._calls is not None:
            self._calls.excuse(handle)

    def withdraw(self, call: Call) -> bool:
        """Take a call back; return whether nobody had begun it."""
        handle = self._handles.get(call)
        return handle is None or (self._calls is not None and self._calls.cancel(handle))

    # No lock is held

    def begin(self) -> None:
        """Hand over the calls that have come."""
        while self._coming:
            try:
                call = self._coming.popleft()
            except IndexError:  # another thread has it
                return
            try:
                self._hand_over(call)
            except CannotTravel as error:
                # One that is to run in processes was not decided about.
                if self._engine.auto is not None and call.kind is not None:
                    self._engine.auto.stay(call)
                else:
                    self._fail(call, error)
            except BaseException as error:
                self._fail(call, error)

    def _fail(self, call: Call, error: BaseException) -> None:
        call.retry = None
        self._engine.failed(call, error)

    def pack(self) -> "Pack":
        """Return the pack."""
        if self._pack is None or not self._pack.usable:
            with self._starting:
                if self._pack is None or not self._pack.usable:
                    from wukong.platforms.local.calls import Calls

                    pack = self._start()
                    self._calls = Calls(pack, self._engine.admission, self._engine.attempts)
                    if self._pack is not None:
                        # Futures may have values in its memory.
                        self._worn.append(self._pack)
                    self._pack = pack
        return self._pack

    def find(self, workers: int, start: bool = True) -> "Pack | None":  # noqa: ARG002 - it has as many as the client
        """Return the pack; if there is none yet, start it, or return None. See `wukong.platforms.local.packs`."""
        return self.pack() if start or self.started else None

    @property
    def started(self) -> bool:
        """Whether there is a pack."""
        return self._pack is not None

    def look(self) -> None:
        """Let those who wait look again, unless this thread is the one that reads for them."""
        if not here.reading:
            self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        if self._pack is not None:
            self._pack.wake()

    def seal(self, call: Call) -> Any:
        """Return the value of a call that is finished as what can leave this process."""
        sealed = call.sealed
        # Workers that were all lost may have been replaced, by others that do not know what those had.
        if sealed is None or not (type(sealed) is bytes or self.pack().arena.holds(sealed)):
            frame = check_travels(self._engine.open(call), f"the value of {call.key!r}")
            call.sealed = bytes(frame) if frame.nbytes <= SMALL else self.pack().arena.seal_frame(frame)
        return call.sealed

    def unseal(self, sealed: Any) -> Any:
        """Return the object."""
        if type(sealed) is bytes:
            return serialize.loads(sealed)
        if self._engine.closed:
            raise ClientClosed(
                "the value was left in memory of a client that is closed; take results before closing it"
            )
        return sealed.arena.unseal(sealed)

    def close(self) -> None:
        """End the workers."""
        with self._starting:
            packs, self._start = [*self._worn, self._pack], _closed
        for pack in packs:
            if pack is not None:
                pack.close()

    def _hand_over(self, call: Call) -> None:
        function, args, kwargs, inputs = call.function, call.args, call.kwargs, call.inputs
        if call.state != READY or function is None:  # cancelled meanwhile
            return
        self.pack()
        assert self._calls is not None
        stands = [Input(index) for index in range(len(inputs))]
        args, kwargs = fill(args, stands), fill(kwargs, stands)
        sealed = [self.seal(read) for read in inputs]
        rank: Any = Rank(call.priority, call.tag)
        self._handles[call] = handle = self._calls.start(
            function,
            args,
            kwargs,
            sealed,
            lambda sealed, error: self._done(call, sealed, error),
            rank,
            call.need,
            call.once,
        )
        if call.done:
            self._handles.pop(call, None)
            self._calls.cancel(handle)

    def _done(self, call: Call, sealed: Any, error: BaseException | None) -> None:
        self._handles.pop(call, None)
        self._ticks.served(call)
        here.reading = True
        try:
            if error is None:
                self._engine.finished(call, sealed=sealed)
            else:
                self._engine.failed(call, error)
        finally:
            here.reading = False


def _closed() -> "Pack":
    raise ClientClosed("this client is closed; make a new one: wukong.Client()")
