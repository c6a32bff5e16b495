"""Calls in processes: their queue, which worker gets which, and what becomes of them. How they run: `called`.

Workers are given calls one at a time, or, if they have been seen to be short, as many as last `BATCH` together: then a
message costs little, and since calls can be withdrawn, none waits behind a long one while a worker is idle. A call that
needs memory (`admission`) is given to a worker alone, when there is room.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wukong import failures
from wukong.cost import PROCESSES
from wukong.errors import WorkerLost, WukongError
from wukong.platforms.local import admission as admissions
from wukong.platforms.local.admission import Admission
from wukong.platforms.local.called import SMALL, Input, Outcome
from wukong.platforms.local.functions import Function, Functions
from wukong.platforms.local.known import Parcel
from wukong.platforms.local.member import Member, Work, given_up
from wukong.platforms.local.pack import Pack
from wukong.travel import check_travels

if TYPE_CHECKING:
    from wukong.storage.arena import Sealed

__all__ = ["Call", "Calls", "Input"]

#: Seconds of calls that are given to a worker at once.
BATCH: Final = 2e-3
#: Calls that are.
_MOST: Final = 100
#: Functions whose durations are remembered.
_REMEMBERED: Final = 1000

Done: TypeAlias = Callable[["Sealed | None", BaseException | None], None]


class Call:
    """A call, to whoever has it run.

    Attributes
    ----------
    queued : bool
        Whether no worker was given it.
    member : Member or None
        The worker that has it.
    deaths : list of WorkerLost
        Of workers that ran it.
    attempts : int
        How many workers may die of it.
    """

    __slots__ = (
        "arguments",
        "attempts",
        "deaths",
        "done",
        "function",
        "inputs",
        "member",
        "need",
        "number",
        "priority",
        "queued",
        "surroundings",
    )

    def __init__(
        self,
        function: Function,
        arguments: "Sealed",
        inputs: "Sequence[Sealed]",
        done: Done,
        priority: float,
        surroundings: Parcel,
        need: int,
        attempts: int,
    ) -> None:
        self.need = need
        self.function = function
        self.arguments = arguments
        self.inputs = inputs
        self.done = done
        self.priority = priority
        self.surroundings = surroundings
        self.number = 0
        self.member: Member | None = None
        self.queued = True
        self.deaths: list[WorkerLost] = []
        self.attempts = attempts

    def __lt__(self, other: "Call") -> bool:
        return (-self.priority, self.number) < (-other.priority, other.number)

    def is_light(self) -> bool:
        """Whether nothing of it lies in the arena."""
        return type(self.arguments) is bytes and all(type(sealed) is bytes for sealed in self.inputs)

    def goes_with(self, other: "Call") -> bool:
        """Whether another call may be sent in one message with this one, which is light."""
        same = self.function.parcel.digest == other.function.parcel.digest
        return same and self.surroundings.digest == other.surroundings.digest and other.is_light()


class Calls:
    """Runs calls in the workers of a pack. Safe to use from any thread.

    Parameters
    ----------
    pack : Pack
        Calls take turns with its other sources of work.
    admission : Admission, optional
        The books of what calls need; the machine's if None.
    attempts : int
        How many workers may die of one call.
    """

    def __init__(self, pack: Pack, admission: Admission | None = None, attempts: int = PROCESSES.attempts) -> None:
        self._pack = pack
        self._attempts = attempts
        self._admission = admission or admissions.machine
        self._needing: list[Call] = []
        self._functions = Functions()
        self._queue: list[Call] = []
        self._at: dict[Member, list[Call]] = {}
        self._numbers = 0
        self._seconds: dict[bytes, float] = {}
        pack.serve("call.done", self._told)
        pack.attach(self)

    def function(self, function: Callable[..., Any]) -> Function:
        """Return a function packed, to be started often.

        Raises
        ------
        CannotTravel
            If it cannot be pickled.
        """
        return self._functions.pack(function)

    def start(
        self,
        function: Callable[..., Any] | Function,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        inputs: "Sequence[Sealed]",
        done: Done,
        priority: float = 0,
        need: int = 0,
        once: bool = False,
    ) -> Call:
        """Have a function called in a worker, in the surroundings of this moment.

        Parameters
        ----------
        function : callable or Function
        args, kwargs
            An `Input` in them, at any depth, stands for the value of an input.
        inputs : sequence of Sealed
            Values that are not loaded here.
        done : callable
            Is given ``(sealed, None)``, what it returned, or ``(None, error)``; once, by whoever reads, with no lock
            held. It must be quick, and must not raise.
        priority : float
            Higher ones go first; of equal ones, those that came first.
        need : int
            Bytes of memory that it needs at once.
        once : bool
            Whether it is not to be started again if its worker dies.

        Raises
        ------
        CannotTravel
            If the function or its arguments cannot be pickled.
        ClientClosed, WorkerLost
            If there are no workers any more.
        """
        packed = function if isinstance(function, Function) else self._functions.pack(function)
        frame = check_travels((tuple(args), dict(kwargs)), f"the arguments of {packed.name}")
        sealed = bytes(frame) if frame.nbytes <= SMALL else self._pack.arena.seal_frame(frame)
        attempts = 1 if once else self._attempts
        call = Call(packed, sealed, inputs, done, priority, self._pack.surroundings(), need, attempts)
        with self._pack.lock:
            self._pack.check()
            self._numbers += 1
            call.number = self._numbers
            heappush(self._needing if need else self._queue, call)
            self._pack.offer()
        return call

    def cancel(self, call: Call) -> bool:
        """Take back a call that no worker has been given; its `done` is not called then. Return whether it was."""
        with self._pack.lock:
            # In the queue it is passed over.
            taken, call.queued = call.queued, False
        return taken

    def excuse(self, call: Call) -> None:
        """Have a call that no worker was given wait for no memory any more."""
        with self._pack.lock:
            if call.queued:
                call.need = 0
                heappush(self._queue, call)
                self._pack.offer()

    def kill(self, call: Call) -> None:
        """End the worker that has a call, if one has; the call fails with `WorkerLost` unless it is done before."""
        call.attempts = 0
        member = call.member
        if member is not None:
            self._pack.kill(member)

    def close(self) -> None:
        """Give no more calls to workers."""
        self._pack.detach(self)

    # As a source; the pack's lock is held

    def next(self, member: Member) -> Work | None:
        """See `wukong.platforms.local.pack.Source`."""
        calls = self._admitted() or self._take() or (self._at and self._withdraw())
        if not calls:
            return None
        for call in calls:
            call.member, call.queued = member, False
        self._at[member] = calls
        if len(calls) > 1:
            os.eventfd_write(member.tickets, len(calls))
        return self._work(member, calls)

    def abandon(self, error: WukongError) -> None:
        """See `wukong.platforms.local.pack.Source`."""
        with self._pack.lock:
            queue, self._queue, self._needing = [*self._queue, *self._needing], [], []
        self._admission.leave(self)
        for call in queue:
            if call.queued:
                call.queued = False
                call.done(None, error)

    def stands(self) -> bool:
        """See `wukong.platforms.local.admission.Party`."""
        return self._pack.idle > 0 and any(call.queued for call in list(self._needing))

    def look_again(self) -> None:
        """See `wukong.platforms.local.admission.Party`."""
        self._pack.wake()

    def _admitted(self) -> list[Call]:
        """Take the next call that needs memory, if it is its turn and it may begin."""
        call, other = _first(self._needing), _first(self._queue)
        if call is None or (other is not None and other < call and not self._admission.urges(self)):
            return []
        return [heappop(self._needing)] if self._admission.admit(self, call.need) else []

    def _take(self) -> list[Call]:
        """Take the next call from the queue, and as many more as are light, and short together."""
        queue = self._queue
        if not queue:
            return []
        fair = -(-len(queue) // self._pack.workers)
        first = _first(queue)
        if first is None:
            return []
        calls = [heappop(queue)]
        # Of a function that has not been seen yet, very long.
        each = self._seconds.get(first.function.parcel.digest, BATCH)
        most = min(fair, _MOST, int(BATCH / each)) if first.is_light() else 1
        while len(calls) < most and (call := _first(queue)) is not None and first.goes_with(call):
            calls.append(heappop(queue))
        return calls

    def _withdraw(self) -> list[Call]:
        """Take back half of what the worker with most calls has not begun."""
        calls = max(self._at.values(), key=len, default=[])
        withdrawn: list[Call] = []
        if len(calls) > 1:
            tickets = calls[0].member.tickets  # type: ignore[union-attr]
            with suppress(BlockingIOError):
                for _ in range(len(calls) // 2):
                    os.eventfd_read(tickets)
                    withdrawn.append(calls.pop())
        return withdrawn[::-1]

    def _work(self, member: Member, calls: list[Call]) -> Work:
        first = calls[0]
        fds: Sequence[int] = ()
        if len(calls) == 1 and not first.is_light():
            (arguments, *inputs), fds = self._pack.arena.lend(member, [first.arguments, *first.inputs])
            listed: list[Any] = [(first.number, arguments, inputs)]
        else:
            listed = [(call.number, call.arguments, call.inputs) for call in calls]
        parcel, name, by_name = first.function
        # In the order in which they are received: what is entered last is there for sure.
        surroundings = member.known.send(first.surroundings)
        function = member.known.send(parcel), name, by_name
        return Work(
            ("calls", surroundings, function, listed),
            fds,
            lambda _, *outcomes: self._returned(member, outcomes),
            lambda error: self._lost(member, error),
        )

    # What comes back; no lock is held

    def _told(self, member: Member, _: Sequence[int], outcome: Outcome) -> None:
        number, good, result, seconds = outcome
        with self._pack.lock:
            calls = self._at[member]
            i = next(i for i, call in enumerate(calls) if call.number == number)
            call = calls.pop(i)
            call.member = None
            self._pack.deaths = 0
            self._saw(call.function.parcel.digest, seconds)
        if call.need:
            self._admission.give_back(call.need)
        if not good:
            call.done(None, failures.unpack(result))
        elif type(result) is bytes:
            call.done(result, None)
        else:
            call.done(self._pack.arena.take(member, result), None)

    def _returned(self, member: Member, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._told(member, (), outcome)
        with self._pack.lock:
            del self._at[member]

    def _lost(self, member: Member, error: WorkerLost) -> None:
        with self._pack.lock:
            calls = self._at.pop(member)
            begun = len(calls)
            with suppress(BlockingIOError):
                while True:
                    os.eventfd_read(member.tickets)
                    begun -= 1
            for call in calls:
                call.member = None
            over = []
            for call in calls[:begun]:
                call.deaths.append(error)
                if len(call.deaths) >= call.attempts or self._pack.closed:
                    over.append(call)
            for call in calls:
                if call not in over:
                    call.queued = True
                    heappush(self._needing if call.need else self._queue, call)
        for call in calls[:begun]:
            if call.need:
                self._admission.give_back(call.need)
        for call in over:
            call.done(None, given_up(call.function.name, call.deaths))

    def _saw(self, digest: bytes, seconds: float) -> None:
        known = self._seconds.pop(digest, None)
        # Quick to believe that calls are long, slow to believe that they are short.
        if known is not None and seconds < known:
            seconds = known + 0.25 * (seconds - known)
        self._seconds[digest] = seconds
        if len(self._seconds) > _REMEMBERED:
            del self._seconds[next(iter(self._seconds))]


def _first(queue: list[Call]) -> Call | None:
    """Return the next call of a queue; those that were taken back are passed over."""
    while queue and not queue[0].queued:
        heappop(queue)
    return queue[0] if queue else None
