"""Calls in a worker: functions run on arguments, and what came of it goes back. Who has them run: `calls`.

Several short calls may come in one message. Before it begins one of these, the worker takes a ticket from a semaphore
that it shares with the client; the client takes tickets, too, when another worker has nothing to do, and so withdraws
calls from the end of the list. The kernel sees to it that each ticket is taken once, so each call runs once, none waits
behind a long one while a worker is idle, and when a worker dies the client knows what it had begun.
"""

import os
from collections.abc import Sequence
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from wukong import failures, serialize
from wukong.platforms.local import output
from wukong.platforms.local.known import Parcel
from wukong.travel import check_travels

if TYPE_CHECKING:
    from wukong.platforms.local.worker import Worker
    from wukong.storage.arena import Wire

#: Results up to this many bytes are sent as they are: up to there the arena does so, too.
SMALL: Final = 64 * 1024

#: What came of a call: its number, whether it returned, its result or error as it travels, and seconds.
Outcome = tuple[int, bool, Any, float]

#: Functions that were sent whole, as they were loaded.
_loaded: dict[bytes, Any] = {}
#: Values that stand in for each `Input` in the arguments that are being loaded.
_inputs: Sequence[Any] = ()


class Input:
    """Stands in the arguments of a call, at any depth, for the value of its `index`-th input."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return _input, (self.index,)


def _input(index: int) -> Any:
    return _inputs[index]


def run(
    worker: "Worker",
    fds: Sequence[int],
    surroundings: Parcel,
    functions: Sequence[tuple[Parcel, str, bool]],
    calls: Sequence[tuple[int, int, "Wire", Sequence["Wire"]]],
) -> tuple[tuple[Outcome, ...], Sequence[int]]:
    """Run calls, telling what came of each; of the last, by returning it.

    Parameters
    ----------
    surroundings : Parcel
        Of all these calls.
    functions : sequence of (Parcel, name, by_name)
        That they call.
    calls : sequence of (number, function, arguments, inputs)
        The function's index in `functions`, the arguments and the inputs as they travel.
    """
    for parcel, _, _ in functions:
        worker.known.receive(parcel)
    trouble: BaseException | None = None
    try:
        worker.surround(surroundings)
    except Exception as error:
        trouble = error
    wires = [wire for _, _, arguments, inputs in calls for wire in (arguments, *inputs)]
    frames = iter(worker.arena.open(wires, fds) if fds else wires)
    for i, (number, index, _, inputs) in enumerate(calls):
        arguments, *opened = [next(frames) for _ in range(1 + len(inputs))]
        if len(calls) > 1 and not _may_begin(worker.tickets):
            break
        began = perf_counter()
        good, result = _call(worker, functions[index], arguments, opened, trouble)
        del arguments, opened
        output.flush()
        outcome = number, good, result, perf_counter() - began
        if i == len(calls) - 1:
            return (outcome,), ()
        worker.tell("call.done", outcome)
    return (), ()


def _may_begin(tickets: int) -> bool:
    try:
        os.eventfd_read(tickets)
    except BlockingIOError:
        return False
    return True


def _call(
    worker: "Worker", function: tuple[Parcel, str, bool], arguments: Any, inputs: Sequence[Any], trouble: Any
) -> tuple[bool, Any]:
    global _inputs
    parcel, name, by_name = function
    at = "was about to be called"
    try:
        if trouble is not None:
            raise trouble
        called = _function(worker, parcel, by_name)
        _inputs = [serialize.loads(frame) for frame in inputs]
        args, kwargs = serialize.loads(arguments)
        _inputs = ()
        at = ""
        value = copy_context().run(called, *args, **kwargs)
        del args, kwargs
        frame = check_travels(value, f"the result of {name}")
        return True, bytes(frame) if frame.nbytes <= SMALL else worker.arena.seal_frame(frame)
    except BaseException as error:
        if at:
            error.add_note(f"wukong: {name} {at} in worker process {os.getpid()}")
        # The first line of its traceback would be here.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return False, failures.pack(error)
    finally:
        _inputs = ()


def _function(worker: "Worker", parcel: Parcel, by_name: bool) -> Any:
    if by_name:
        # Whatever has that name by now: its module may have been loaded again.
        return serialize.loads(worker.known.receive(parcel), serialize.FUNCTION)
    loaded = _loaded.get(parcel.digest)
    if loaded is None:
        for digest in [digest for digest in _loaded if digest not in worker.known]:
            del _loaded[digest]
        loaded = serialize.loads(worker.known.receive(parcel), serialize.FUNCTION)
        _loaded[parcel.digest] = loaded
    return loaded
