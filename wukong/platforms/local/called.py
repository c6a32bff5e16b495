"""Calls in a worker: functions run on arguments, and what came of it goes back. Who has them run: `calls`.

Several short calls may come in one message. Before it begins one of these, the worker takes a ticket from a semaphore
that it shares with the client; the client takes tickets, too, when another worker has nothing to do, and so withdraws
calls from the end of the list. The kernel sees to it that each ticket is taken once, so each call runs once, none waits
behind a long one while a worker is idle, and when a worker dies the client knows what it had begun.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from contextvars import copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wukong import failures, serialize
from wukong.platforms.local import output
from wukong.platforms.local.surroundings import applied
from wukong.travel import check_travels

if TYPE_CHECKING:
    from wukong.platforms.local.worker import Worker
    from wukong.storage.arena import Wire

#: Results up to this many bytes are sent as they are: up to there the arena does so, too.
SMALL: Final = 64 * 1024

#: What came of a call: its number, whether it returned, its result or error as it travels, and seconds.
Outcome: TypeAlias = tuple[int, bool, Any, float]
#: A function: digest and frame, its name for messages, whether it goes by its name.
Sent: TypeAlias = tuple[tuple[bytes, bytes], str, bool]

#: Functions that were sent whole, as they were loaded.
_loaded: dict[bytes, Any] = {}
#: Modules had been loaded again so often then.
_loaded_after = 0
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
    surroundings: tuple[bytes, bytes],
    function: Sent,
    calls: Sequence[tuple[int, "Wire", Sequence["Wire"]]],
) -> tuple[tuple[Outcome, ...], Sequence[int]]:
    """Run calls of one function, telling what came of each; of the last, by returning it.

    Parameters
    ----------
    surroundings : (digest, frame)
        Of all these calls.
    function : (digest, frame), name, by_name
    calls : sequence of (number, arguments, inputs)
        As they travel.
    """
    trouble: BaseException | None = None
    try:
        worker.surround(*surroundings)
    except Exception as error:
        trouble = error
    worker.known.receive(*function[0])
    opened: Iterator[Any] | None = None
    if fds:
        opened = iter(worker.arena.open([wire for call in calls for wire in (call[1], *call[2])], fds))
    several = len(calls) > 1
    outcome: Outcome | None = None
    for number, arguments, inputs in calls:
        if opened is not None:
            arguments, inputs = next(opened), [next(opened) for _ in inputs]
        if several:
            if outcome is not None:
                worker.tell("call.done", outcome)
                outcome = None
            if not _may_begin(worker.tickets):
                break
        began = perf_counter()
        good, result = _call(worker, function, arguments, inputs, trouble)
        output.flush()
        outcome = number, good, result, perf_counter() - began
    return (() if outcome is None else (outcome,)), ()


def _may_begin(tickets: int) -> bool:
    try:
        os.eventfd_read(tickets)
    except BlockingIOError:
        return False
    return True


def _call(
    worker: "Worker", function: Sent, arguments: Any, inputs: Sequence[Any], trouble: BaseException | None
) -> tuple[bool, Any]:
    global _inputs
    (digest, _), name, by_name = function
    at = "was about to be called"
    try:
        if trouble is not None:
            raise trouble
        called = _function(worker, digest, by_name)
        if inputs:
            _inputs = [serialize.loads(frame) for frame in inputs]
        args, kwargs = serialize.loads(arguments)
        _inputs = ()
        at = ""
        value = copy_context().run(called, *args, **kwargs)
        del args, kwargs
        try:
            frame = serialize.dumps(value)
        except Exception:
            frame = check_travels(value, f"the result of {name}")
        return True, bytes(frame) if frame.nbytes <= SMALL else worker.arena.seal_frame(frame)
    except BaseException as error:
        if at:
            # Some errors can take no note: those of a frozen dataclass, for one.
            with suppress(Exception):
                error.add_note(f"wukong: {name} {at} in worker process {os.getpid()}")
        # The first line of its traceback would be here.
        return False, failures.pack(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
    finally:
        _inputs = ()


def _function(worker: "Worker", digest: bytes, by_name: bool) -> Any:
    global _loaded_after
    if _loaded_after != applied.reloaded.times:
        # They may hold functions of the old code.
        _loaded_after = applied.reloaded.times
        _loaded.clear()
    function = _loaded.get(digest)
    if function is None:
        function = serialize.loads(worker.known.receive(digest, b""), serialize.FUNCTION)
        # One that goes by its name is whatever has it at the time: a task may load its module again.
        if not by_name:
            for other in [other for other in _loaded if other not in worker.known]:
                del _loaded[other]
            _loaded[digest] = function
    return function
