"""The client as a `concurrent.futures.Executor`, with the standard library's own futures."""

import concurrent.futures as cf
from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from threading import Lock
from typing import Any

from wukong.scheduler.futures.call import CANCELLED, Call, lift
from wukong.scheduler.futures.engine import Engine
from wukong.scheduler.futures.lanes import Turn
from wukong.scheduler.futures.outcome import outcome

_numbers = count()


class CallFuture(cf.Future):  # type: ignore[type-arg]
    """A future of the standard library; whoever waits for it in a call of the client gives up its place meanwhile."""

    call: Call

    def cancel(self) -> bool:
        """Cancel the call unless it runs or is done; return whether it is cancelled."""
        if super().cancel():
            self.call.engine.cancel([self.call], begun=False)
            return True
        return False

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the value and return it."""
        self._wait(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait and return what it ended with, None if it has a value."""
        self._wait(timeout)
        return super().exception(timeout)

    def _wait(self, timeout: float | None) -> None:
        if not self.done():
            self.call.engine.wait([self.call], timeout)


class ClientExecutor(cf.Executor):
    """Runs calls on the workers of a client.

    Parameters
    ----------
    engine : Engine
        The client's.
    priority : float
        Of its calls.
    """

    def __init__(self, engine: Engine, priority: float = 0) -> None:
        self._engine = engine
        self._priority = priority
        self._turn = Turn()
        self._lock = Lock()
        self._over = False
        self._futures: set[CallFuture] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture:
        """Call a function in the background."""
        inputs: dict[Call, int] = {}
        args, kwargs = lift(args, inputs), lift(kwargs, inputs)
        name = f"{getattr(fn, '__name__', type(fn).__name__)}-executor-{next(_numbers)}"
        call = Call(
            self._engine, name, fn, args, kwargs, tuple(inputs), priority=self._priority, context=copy_context()
        )
        future = CallFuture()
        future.call = call
        call.started = future.set_running_or_notify_cancel
        call.callbacks.append(lambda call: self._done(future, call))
        with self._lock:
            if self._over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._futures.add(future)
        self._engine.submit([call], None, self._turn)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those that there are, or cancel those that have not begun. The client stays."""
        with self._lock:
            self._over = True
            futures = list(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            self._engine.wait([future.call for future in futures])
            cf.wait(futures)

    def _done(self, future: CallFuture, call: Call) -> None:
        with self._lock:
            self._futures.discard(future)
        call.started = None
        if call.state == CANCELLED:
            # Cancelled otherwise than through this future, or it is already.
            if not cf.Future.cancel(future) and not future.done():
                future.set_exception(cf.CancelledError())
            if future.cancelled():
                future.set_running_or_notify_cancel()
            return
        if not future.running() and not future.set_running_or_notify_cancel():
            return
        error = outcome(call)
        if error is None:
            future.set_result(self._engine.open(call))
        else:
            future.set_exception(error)
