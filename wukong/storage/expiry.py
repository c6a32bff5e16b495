"""Keeps what living jobs have in a store from expiring: one thread of a client, which wakes three times in their `ttl`.

Everything in a store expires, so that nothing stays of clients that were killed; how long a job takes nobody knows.
Only its client looks after it: without one, what its executors do is of no use. A job that ends before a third of its
`ttl` has passed costs an entry in a dictionary.
"""

import os
import sys
import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from wukong.errors import StoreError

#: How often what is there for a while is prolonged meanwhile.
_TIMES: Final = 3


class Prolonged(Protocol):
    """What is in a store for some time."""

    @property
    def prolong(self) -> Callable[[], None]:
        """Has it stay for the same time again."""


class Expiry:
    """What is to be prolonged for as long as it lives, and the thread that does it, started with the first of them."""

    def __init__(self) -> None:
        self._due: WeakKeyDictionary[Prolonged, tuple[float, float]] = WeakKeyDictionary()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes = inf

    def put_off(self, what: Prolonged, ttl: float) -> None:
        """Prolong now and then what stays for `ttl` seconds. If the store fails, it is tried again the next time."""
        every = ttl / _TIMES
        due = monotonic() + every
        with self._changed:
            self._due[what] = due, every
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="wukong-expiry", daemon=True)
                self._thread.start()
            elif due < self._wakes:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            for what in self._ready():
                try:
                    what.prolong()
                except StoreError:
                    pass
                except Exception as error:
                    # One that fails must not end those of other jobs.
                    sys.excepthook(type(error), error, error.__traceback__)
            what = None  # type: ignore[assignment]

    def _ready(self) -> list[Prolonged]:
        """Return what it is time for, as soon as there is any."""
        with self._changed:
            while True:
                now = monotonic()
                dues = list(self._due.items())
                ready = [what for what, (due, _) in dues if due <= now]
                if ready:
                    self._due.update((what, (now + every, every)) for what, (due, every) in dues if due <= now)
                    return ready
                self._wakes = min((due for _, (due, _) in dues), default=inf)
                del dues
                self._changed.wait(None if self._wakes == inf else min(self._wakes - now, threading.TIMEOUT_MAX))


expiry = Expiry()


def _anew() -> None:
    """Begin anew in a forked child: its parent's jobs are not its own."""
    global expiry
    expiry = Expiry()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
