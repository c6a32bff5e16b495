"""Things to be done at a time to come, by one thread that lives while there are any. Not what they are."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from threading import Condition, Thread
from time import monotonic

_numbers = count()


class Later:
    """A thread that calls functions when their time has come."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = Condition()
        self._running = False

    def call(self, seconds: float, function: Callable[[], None]) -> None:
        """Have a function called in so many seconds. It must be quick, and must not raise."""
        with self._changed:
            heappush(self._waiting, (monotonic() + seconds, next(_numbers), function))
            if self._running:
                self._changed.notify()
            else:
                self._running = True
                Thread(target=self._run, name="wukong-later", daemon=True).start()

    def close(self) -> None:
        """Call nothing more."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting and (left := self._waiting[0][0] - monotonic()) > 0:
                    self._changed.wait(left)
                if not self._waiting:
                    self._running = False
                    return
                function = heappop(self._waiting)[2]
            function()
            del function
