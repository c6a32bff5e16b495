"""Rounds: one thread of this process looks in on whatever is attached, each as often as it asks. Not what it sees.

It sleeps while nothing is due, so that jobs that are over soon, as most are, cost it nothing but to be told of.
"""

import os
import sys
import threading
from collections.abc import Callable
from math import inf
from time import monotonic


class Rounds:
    """The thread, started when something is attached for the first time, and what it looks in on."""

    def __init__(self) -> None:
        self._looks: dict[Callable[[], None], tuple[float, float]] = {}
        self._changed = threading.Condition()
        self._until = -inf
        self._thread: threading.Thread | None = None

    def attach(self, look: Callable[[], None], every: float) -> None:
        """Call `look` every so many seconds, from so many seconds from now on.

        Parameters
        ----------
        look : callable
            Called with no lock held, and maybe once more while it is detached. What it raises is printed.
        every : float
            Seconds; nothing is called if there are infinitely many.
        """
        if every == inf:
            return
        with self._changed:
            due = monotonic() + every
            self._looks[look] = (due, every)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wukong-rounds", daemon=True)
                self._thread.start()
            elif due < self._until:
                self._changed.notify()

    def detach(self, look: Callable[[], None]) -> None:
        """Call it no more."""
        with self._changed:
            self._looks.pop(look, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = monotonic()
                due = [look for look, (when, _) in self._looks.items() if when <= now]
                for look in due:
                    every = self._looks[look][1]
                    self._looks[look] = now + every, every
                if not due:
                    self._until = min((when for when, _ in self._looks.values()), default=inf)
                    self._changed.wait(None if self._until == inf else self._until - now)
                    self._until = -inf
            for look in due:
                try:
                    look()
                except Exception as error:
                    sys.excepthook(type(error), error, error.__traceback__)
            # A job must not live on in a thread that has nothing to do.
            due = []
            look = _nothing


def _nothing() -> None:
    return None


#: Those of this process; a fork starts without the thread.
rounds = Rounds()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=rounds.__init__)  # type: ignore[misc]
