"""What people hold of a call: `Future`, and waiting for several. Not how calls run: see `wukong.scheduler.futures`.

A future is released with its last reference: its value is freed when no waiting call needs it either. The call runs all
the same; only `cancel` stops it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple, NoReturn, Self

from wukong.errors import CannotTravel
from wukong.scheduler.dask.collections import TaskRef
from wukong.scheduler.futures.call import CANCELLED, FAILED, FINISHED, Call, FutureCancelled
from wukong.scheduler.futures.containers import futures_of
from wukong.scheduler.futures.outcome import outcome, trace
from wukong.scheduler.futures.waiting import Signal, remaining

__all__ = ["Future", "FutureCancelled", "as_completed", "futures_of", "wait"]

_STATUS = {FINISHED: "finished", FAILED: "error", CANCELLED: "cancelled"}


class Future(TaskRef):  # type: ignore[misc]
    """The value of a call that may not have run yet.

    It may stand for its value in the arguments of other calls and in Dask collections. ``await`` works in every loop.

    Attributes
    ----------
    key : key
        The name of the call.
    status : str
        ``pending``, ``finished``, ``error`` or ``cancelled``.
    job : str or None
        Of a graph's, the name of the job.
    """

    __slots__ = ("__weakref__", "call")
    __dask_future__ = True

    def __init__(self, call: Call) -> None:
        super().__init__(call.key)
        self.call = call

    @property
    def status(self) -> str:
        """How far it is: ``pending``, ``finished``, ``error`` or ``cancelled``."""
        return _STATUS.get(self.call.state, "pending")

    @property
    def job(self) -> str | None:
        """Of a future of a graph, the name of its job, which `Client.attach` takes; else None."""
        return self.call.job

    def done(self) -> bool:
        """Return whether it has a value, has failed, or was cancelled."""
        return self.call.done

    def cancelled(self) -> bool:
        """Return whether it was cancelled, or needed one that was."""
        return self.call.state == CANCELLED

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value and return it; every time the same object.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Raises
        ------
        TimeoutError
            If it takes longer.
        FutureCancelled
        BaseException
            What the call raised, or the one that it needed; a note names them.
        """
        error = self.exception(timeout)
        if error is not None:
            try:
                # Else it would grow by the way to here each time.
                raise error.with_traceback(trace(self.call))
            finally:
                # The traceback leads to this frame.
                del error
        return self.call.engine.open(self.call)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what it ended with, None if it has a value.

        Raises
        ------
        TimeoutError
        """
        call = self.call
        if not call.done and not call.engine.wait([call], timeout):
            _late([self], timeout)
        return outcome(call)

    def traceback(self, timeout: float | None = None) -> Any:
        """Wait and return the traceback of `exception`, or None."""
        return None if self.exception(timeout) is None else trace(self.call)

    def cancel(self) -> bool:
        """Cancel the call, and with it those that need it; return whether it was before it began.

        The future is cancelled at once. A call that runs cannot be stopped: it runs to its end. Of a graph that runs
        nothing more begins, once all its futures are cancelled. `Client.cancel` says what may still run.
        """
        return bool(self.call.engine.cancel([self.call]).spared)

    def add_done_callback(self, function: Callable[["Future"], Any]) -> None:
        """Have ``function(future)`` called when it is done: by the thread that ends it, or, if it is done, at once."""
        self.call.engine.watch(self.call, lambda call: function(Future(call)))

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            yield from _arrival(self.call).__await__()
        return self.result()

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, self.key

    def __reduce__(self) -> NoReturn:
        raise CannotTravel(
            f"the future {self.key!r} is inside of an object, where nobody can put its value in its place; give it as "
            "an argument, or in lists, tuples, sets and dictionaries, or take its result() first"
        )

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        call = self.call
        what = f", type: {type(call.value).__qualname__}" if call.state == FINISHED and call.has_value else ""
        if call.state == FAILED and (error := outcome(call)) is not None:
            what = f", {type(error).__qualname__}"
            with suppress(Exception):  # a broken one of somebody's own
                what += f": {error}"
        return f"<Future: {self.status}{what}, key: {self.key}>"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<code>{escape(repr(self))}</code>"


async def _arrival(call: Call) -> None:
    """Wait in the running loop of asyncio until a call is done."""
    from asyncio import get_running_loop

    loop = get_running_loop()
    arrived: Any = loop.create_future()

    def arrive() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def tell(_: Call) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(arrive)

    call.engine.watch(call, tell)
    try:
        await arrived
    finally:
        call.engine.ignore([call], tell)


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    done: set[Future]
    not_done: set[Future]


def wait(futures: Any, timeout: float | None = None, return_when: str = "ALL_COMPLETED") -> DoneAndNotDone:
    """Wait for futures.

    Parameters
    ----------
    futures : Future, or containers, iterables, or persisted collections of them
    timeout : float, optional
        Seconds.
    return_when : str
        ``ALL_COMPLETED``, ``FIRST_COMPLETED`` or ``FIRST_EXCEPTION``.

    Raises
    ------
    TimeoutError
        If it takes longer; says what was waited for.
    """
    fs = futures_of(futures)
    if return_when not in ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"):
        raise ValueError(f"return_when={return_when!r}; use ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION")
    deadline = None if timeout is None else monotonic() + timeout
    left = fs
    while left:
        first = return_when != "ALL_COMPLETED"
        if not left[0].call.engine.wait([f.call for f in left], remaining(deadline), first):
            _late(fs, timeout)
        left = [f for f in left if not f.done()]
        if return_when == "FIRST_COMPLETED" or (first and any(f.done() and f.status != "finished" for f in fs)):
            break
    return DoneAndNotDone({f for f in fs if f.done()}, {f for f in fs if not f.done()})


def _late(futures: list[Future], timeout: float | None) -> NoReturn:
    waiting = [f for f in futures if not f.done()]
    first = f"the future {waiting[0].key!r}" if waiting else "a future"
    more = f" and {len(waiting) - 1} more of {len(futures)}" if len(waiting) > 1 else ""
    raise TimeoutError(f"{first}{more} was not done after {timeout:g} s; wait longer, or cancel it")


class as_completed:  # noqa: N801 - used like the function of this name elsewhere
    """Iterate over futures in the order in which they are done, in a loop of asyncio with ``async for``.

    Parameters
    ----------
    futures : iterable of Future
        More may be added while it runs.
    with_results : bool
        Whether to yield pairs of future and result.
    raise_errors : bool
        Whether a failed future raises there; if not, its exception stands in the place of the result.
    timeout : float, optional
        Seconds for all of it.

    Raises
    ------
    TimeoutError
        While iterating.
    """

    def __init__(
        self,
        futures: Iterable[Future] = (),
        *,
        with_results: bool = False,
        raise_errors: bool = True,
        timeout: float | None = None,
    ) -> None:
        self._with_results = with_results
        self._raise_errors = raise_errors
        self._timeout = timeout
        self._deadline = None if timeout is None else monotonic() + timeout
        self._lock = Lock()
        self._pending: dict[Call, list[Future]] = {}
        self._arrived: deque[Future] = deque()
        self._waiting: list[Callable[[Call], Any]] = []
        self.update(futures)

    def add(self, future: Future) -> None:
        """Add a future."""
        self.update([future])

    def update(self, futures: Iterable[Future]) -> None:
        """Add futures."""
        for future in futures:
            with self._lock:
                known = future.call in self._pending
                self._pending.setdefault(future.call, []).append(future)
            if not known:
                future.call.engine.watch(future.call, self._arrive)

    def count(self) -> int:
        """Return how many have not been yielded yet."""
        with self._lock:
            return sum(map(len, self._pending.values())) + len(self._arrived)

    def has_ready(self) -> bool:
        """Return whether one is done that has not been yielded yet."""
        return bool(self._arrived)

    def is_empty(self) -> bool:
        """Return whether all have been yielded."""
        return not self.count()

    def batches(self) -> Iterator[list[Any]]:
        """Iterate over lists of all that are done by then, at least one each."""
        while not self.is_empty():
            yield self.next_batch()

    def next_batch(self, block: bool = True) -> list[Any]:
        """Return all that are done; if there are none, wait for one if `block`."""
        batch = [next(self)] if block else []
        while self._arrived:
            batch.append(self._yield())
        return batch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while not self._arrived:
            oldest = next(iter(self._pending), None)
            if oldest is None:
                raise StopIteration
            signal = Signal()
            if self._call(signal.give) and not oldest.engine.block(signal, remaining(self._deadline)):
                self._late()
        return self._yield()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        from asyncio import Event, get_running_loop, wait_for

        loop, event = get_running_loop(), Event()
        while not self._arrived:
            if not self._pending:
                raise StopAsyncIteration
            event.clear()
            if self._call(lambda _: loop.call_soon_threadsafe(event.set)):
                try:
                    await wait_for(event.wait(), remaining(self._deadline))
                except TimeoutError:
                    self._late()
        return self._yield()

    def _arrive(self, call: Call) -> None:
        with self._lock:
            self._arrived.extend(self._pending.pop(call, ()))
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            # A loop of asyncio that has been closed meanwhile waits for nothing.
            with suppress(RuntimeError):
                wake(call)

    def _call(self, wake: Callable[[Call], Any]) -> bool:
        """Have `wake` called when the next one is done; return False if one is already."""
        with self._lock:
            if not self._arrived:
                self._waiting.append(wake)
            return not self._arrived

    def _late(self) -> NoReturn:
        with self._lock:
            left = [future for futures in self._pending.values() for future in futures]
        _late(left, self._timeout)

    def _yield(self) -> Any:
        future = self._arrived.popleft()
        if not self._with_results:
            return future
        error = future.exception()
        if error is None or self._raise_errors:
            return future, future.result()
        return future, error
