"""The model of time that answers: run here or invoke? write or hold? inline or stored? settle now or later?

One set of constants per place where a job can run; each is a measured figure with the day it was taken, and any can be
overridden (`Costs.replace`). Nothing else in the project carries a threshold of its own.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Final


@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost at one place, in seconds and bytes.

    Attributes
    ----------
    round_trip : float
        One request to the control store.
    bandwidth : float
        Bytes per second to and from the value store.
    invoke : float
        From asking for an executor until it has claimed its task.
    unknown : float
        What a task is taken to last before one of its kind has run.
    lease : float
        How long an executor may be silent before its tasks are given to another.
    attempts : int
        How many attempts a task has before the job ends with `TaskLost`; as good as none where whoever starts executors
        knows what each was at when it died, and so counts for itself.
    task : float
        What a task costs beside its run once it is compiled: compiling, settling and handing it out.
    start : float
        Until executors can be started at all, if none has run yet.
    copies : int
        How often the bytes of a value are moved until another executor has them: written and read, 2; mapped where they
        were written, 1; never, where it is given the very object.
    measured : str
        Where and when the constants were taken.
    """

    round_trip: float
    bandwidth: float
    invoke: float
    unknown: float = 1e-3
    lease: float = 60.0
    attempts: int = 5
    task: float = 0.0
    start: float = 0.0
    copies: int = 2
    measured: str = ""

    def replace(self, **changes: float | int | str) -> "Costs":
        """Return the same costs with some constants overridden."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def inline_limit(self) -> int:
        """Largest value, in bytes, that rides with its record: sending it again costs less than one round trip."""
        return int(self.round_trip * self.bandwidth)

    @property
    def linger(self) -> float:
        """How long finished work may wait for company on its way to the store: settling then costs a fifth of it."""
        return 4 * self.round_trip

    def write(self, nbytes: int) -> float:
        """Seconds until a value is where others find it."""
        return nbytes / self.bandwidth if self.copies else 0.0

    def read(self, nbytes: int) -> float:
        """Seconds until an executor has a value that was written by another."""
        return nbytes / self.bandwidth if self.copies > 1 else 0.0

    def keep(self, task_seconds: float, queued: int, nbytes: int, children: int, busy: bool = False) -> int:
        """How many of the `children` of a value an executor with `queued` tasks of its own keeps rather than invokes.

        With `I` for an invocation, `W` to write the value, `R` to read it, and children of `t` each:

        - elsewhere a child begins ``I + R`` later: `k` are kept while ``(queued + k) * t <= I + R``, and one at least;
        - while all workers are `busy`, no child begins sooner for being shipped, and shipping takes time from other
          tasks: `k` are kept while ``(queued + k) * t <= 10 * (I + R)``, so that shipping the rest costs a tenth;
        - if all are kept the value is never written: so the others are, too, if they last no longer than `W`.

        After Wukong (SoCC '20, section 4), whose rule is a size alone.
        """
        away = self.invoke + self.read(nbytes)
        kept = max(1, int((10 if busy else 1) * away / max(task_seconds, 1e-9)) - queued)
        return children if (children - kept) * task_seconds <= self.write(nbytes) else kept

    def group(self, task_seconds: float) -> int:
        """How many tasks one invoked executor starts with: as many as last as long as the invocation itself."""
        return max(1, int(self.invoke / max(task_seconds, 1e-9)))

    def batch(self, task_seconds: float) -> int:
        """How many waiting tasks a worker takes at once where workers are few: entering then costs a tenth at most."""
        return max(1, int(10 * self.invoke / max(task_seconds, 1e-9)))

    @property
    def patience(self) -> float:
        """How long a task runs, in seconds, for others to be started beside it: ten times what that costs."""
        return 10 * self.invoke

    def hand_over(self, worked: float, left: int, expected: float = 0.0) -> bool:
        """Whether a walk alone that has worked for `worked` seconds may hand over the `left` tasks that remain.

        What that costs must be less than what was worked already: so, whatever the tasks that remain turn out to be,
        it takes no more than twice the time of whoever knew. If they are `expected` to last so long that two would be
        done with them sooner, there is nothing to wait for.
        """
        return max(worked, expected / 2) > left * self.task

    def hold(self, nbytes: int) -> float:
        """How long, in seconds, waiting for the last child beats writing `nbytes` and reading them elsewhere."""
        return self.write(nbytes) + self.read(nbytes)


#: Attempts, as many as a job epoch has.
_ANY: Final = 1 << 20

#: Threads of one process over the in-memory store; 2 vCPU virtual machine, Python 3.11, 2026-11.
#: None of them dies alone.
IN_PROCESS: Final = Costs(
    5e-6,
    1e15,
    60e-6,
    lease=inf,
    attempts=_ANY,
    task=50e-6,
    copies=0,
    measured="2 vCPU VM, Python 3.11, 2026-11",
)

#: Executors over a Redis or Valkey server on this machine (Unix socket): a request, and values of 0.25 to 8 MB that two
#: executors write and read at once; same machine and month.
LOCAL_SERVER: Final = Costs(
    100e-6, 1e9, 100e-6, attempts=_ANY, measured="2 vCPU VM, Valkey 9.1 over a Unix socket, 2026-11"
)

#: Processes of one machine over the arena: a call there and back, and memory that is touched for the first time (blocks
#: that are used again take 8 GB/s); same machine and day. The lease is how long one may be stopped.
PROCESSES: Final = Costs(
    100e-6,
    2e9,
    200e-6,
    lease=5.0,
    attempts=3,
    start=0.3,
    copies=1,
    measured="2 vCPU VM, Python 3.11, memfd, 2026-11",
)

#: Executors and a Redis server in one data centre: figures of the FMI paper (2.0 ms, 400 MB/s) and of Lambda's invoke.
DATA_CENTRE: Final = Costs(2e-3, 400e6, 50e-3, measured="FMI (ICS '23); AWS Lambda Event invoke, 2026-11")


class Estimates:
    """How long tasks of each kind take: a moving average of what was seen, shared by the executors of a process."""

    __slots__ = ("_seconds", "unknown")

    def __init__(self, unknown: float) -> None:
        self.unknown = unknown
        self._seconds: dict[int, float] = {}

    def seconds(self, kind: int) -> float:
        """Expected duration of a task of this kind, in seconds."""
        return self._seconds.get(kind, self.unknown)

    def known(self) -> dict[int, float]:
        """Return what was seen, in seconds by kind."""
        return dict(self._seconds)

    def saw(self, kind: int, seconds: float) -> None:
        """Note that a task of this kind took `seconds`."""
        known = self._seconds.get(kind)
        self._seconds[kind] = seconds if known is None else known + 0.25 * (seconds - known)
