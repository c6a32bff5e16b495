"""Looks in on workers that are at work, now and then: which have been stopped, or their keeper; who else wants to look.

One thread for a pack; it sleeps while nobody is at work, and costs nothing per task. A worker counts as silent by what
the system says of it (state ``T``: SIGSTOP, or a debugger that let go), never by time alone: a long task, or one that
does not let go of the interpreter, is not silent, and a client that was itself suspended has seen nothing meanwhile.
"""

import sys
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final

from wukong.platforms.local.member import Member

#: Seconds between two looks.
EVERY: Final = 0.5


class Watch:
    """The thread of a pack, started with its first work.

    Parameters
    ----------
    at_work : callable
        Returns the workers that are at work.
    silent : callable
        ``silent(member)``: it has been stopped for longer than `lease`.
    looks : callable
        Returns what else is to be called at each look. What these raise is printed.
    keeper : callable
        Returns the process number of the keeper if something is expected of it; else None.
    stuck : callable
        ``stuck()``: the keeper has been stopped for longer than `lease`, while something was expected of it.
    lease : float
        Seconds that a process may be stopped.
    """

    def __init__(
        self,
        at_work: Callable[[], list[Member]],
        silent: Callable[[Member], None],
        looks: Callable[[], Iterable[Callable[[], None]]],
        keeper: Callable[[], int | None],
        stuck: Callable[[], None],
        lease: float,
    ) -> None:
        self.rests = True
        self.lease = lease
        self._at_work = at_work
        self._silent = silent
        self._looks = looks
        self._keeper = keeper
        self._stuck = stuck
        self._stopped: dict[int, float] = {}
        self._called = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Look from now on, as somebody is at work. The pack's lock must be held."""
        self.rests = False
        self._called.set()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="wukong-watch", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self._called.set()

    def look(self, passed: float) -> None:
        """Look once, `passed` seconds after the last time."""
        members = {member.pid: member for member in self._at_work()}
        keeper = self._keeper()
        pids = [pid for pid in (*members, keeper) if pid is not None and _stops(pid)]
        self._stopped = {pid: self._stopped.get(pid, -passed) + passed for pid in pids}
        for pid, seconds in self._stopped.items():
            if seconds >= self.lease:
                if pid == keeper:
                    self._stuck()
                else:
                    self._silent(members[pid])
        for look in self._looks():
            try:
                look()
            except Exception as error:
                # One job's trouble: the workers, and the other jobs, are looked after all the same.
                sys.excepthook(type(error), error, error.__traceback__)

    def _run(self) -> None:
        while not self._over.is_set():
            before = monotonic()
            if self._over.wait(EVERY):
                return
            # Not longer than that, whatever the clock says: this process may have been suspended.
            self.look(min(monotonic() - before, 2 * EVERY))
            if not self._at_work():
                self._called.clear()
                self.rests = True
                # Somebody may have begun before that could be seen.
                if not self._at_work():
                    self._called.wait()
                self.rests = False


def _stops(pid: int) -> bool:
    """Whether a process has been stopped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] == b"T"
    except OSError:
        return False
