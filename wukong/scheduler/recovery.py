"""Recovery of one job's executors in worker processes: who was sent where, what dies with them, what starts again.

    a worker dies      its executor is known to be dead: what it had claimed is ready again, and is started again
    a task kills       its worker, or was at work when it died, too often: the job ends with the evidence
    a task straggles   far behind others of its kind, while a worker is idle: a second copy; the first commit wins

Only the task that was at work is counted against, not those that waited in the same executor. Nobody reads a clock for
a task that does not straggle. What workers are, and how one knows that they are gone, is the pack's business.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from statistics import median
from time import monotonic
from typing import Final, NamedTuple

from wukong.cost import PROCESSES
from wukong.errors import StoreError, TaskLost, WorkerLost
from wukong.events import Spans
from wukong.executor import effects as fx
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.ids import new_nonce
from wukong.plan.columns import ONCE
from wukong.plan.reading import Plan
from wukong.platforms.local.board import Posted
from wukong.platforms.local.member import Member, given_up
from wukong.protocol import messages as m
from wukong.scheduler.watch import renew, sweep

#: A task may straggle if so many of its kind have run, if it takes so many times their median, and so many seconds.
_SEEN: Final = 10
_TIMES: Final = 3.0
_LEAST: Final = 1.0
#: So many times the deaths are allowed of a task that had not begun.
_UNSURE: Final = 3
#: Inputs that are asked for with a claim; tasks with more ask for theirs when they are to run.
_WANTED: Final = 64
#: Seconds: longer than any job.
_EVER: Final = 1e9


class Terms(NamedTuple):
    """What is started again.

    Attributes
    ----------
    attempts : int
        How many workers may die at one task.
    stragglers : bool
        Whether there are second copies of tasks that straggle.
    """

    attempts: int = PROCESSES.attempts
    stragglers: bool = True


USUAL: Final = Terms()


@dataclass(slots=True, eq=False)
class Entry:
    """An executor in a worker.

    Attributes
    ----------
    nonce : str
        Its name.
    member : Member
        The worker.
    starts : sequence of int
        What it was started on.
    task, since : int or None, float
        What it was at when it was last looked at, and since when at least.
    """

    nonce: str
    member: Member
    starts: Sequence[int]
    task: int | None = None
    since: float = 0.0


@dataclass(slots=True)
class Recovery:
    """Recovery of one job.

    Parameters
    ----------
    job : Job
        The job.
    plan : Plan
        The whole of its plan.
    posted : Posted
        Its place on the board.
    at : callable
        Returns the task that a worker is at, or was at when it died; None if at none.
    idle : callable
        Returns how many workers have nothing to do.
    terms : Terms
        What is started again.
    ours : bool
        Whether the records are in this process.

    Attributes
    ----------
    deaths, again, copies : int
        Workers that died; tasks that were started again after that; second copies of stragglers.
    dead : list of str
        The executors of workers that died.
    """

    job: Job
    plan: Plan
    posted: Posted
    at: Callable[[Member], int | None]
    idle: Callable[[], int]
    terms: Terms
    ours: bool
    deaths: int = 0
    again: int = 0
    copies: int = 0
    dead: list[str] = field(default_factory=list)
    _entries: dict[str, Entry] = field(default_factory=dict)
    _blamed: dict[tuple[int, bool], list[WorkerLost]] = field(default_factory=dict)
    _copied: set[int] = field(default_factory=set)
    _lasted: dict[int, list[float]] = field(default_factory=dict)
    _read: int = 0
    _sizes: Counter[int] | None = None
    _driver: Driver = field(init=False)

    def __post_init__(self) -> None:
        self._driver = Driver(self.job)

    def begin(self, member: Member, starts: Sequence[int]) -> tuple[Entry, Sequence[m.Grant] | None]:
        """Name an executor that a worker is sent, and claim its tasks for it where that takes no request to a server.

        Inputs that are packed already come with the claim; the rest it has to ask for.
        """
        entry = Entry(new_nonce(), member, starts)
        self._entries[entry.nonce] = entry
        if not self.ours:
            return entry, None
        tasks = []
        for task in starts:
            inputs = self.plan.inputs(task)
            tasks.append((task, tuple(inputs) if len(inputs) <= _WANTED else ()))
        reply = self.job.control.apply(self.job.name, 0, m.Claim(entry.nonce, 1, inf, tuple(tasks)))
        return entry, [grant._replace(inputs=tuple(filter(_travels, grant.inputs))) for grant in reply.body]

    def end(self, entry: Entry) -> None:
        """Note that an executor has come to its end."""
        self._entries.pop(entry.nonce, None)

    def lost(self, entry: Entry, error: WorkerLost) -> tuple[Hashable, WorkerLost] | None:
        """Have started again what an executor leaves whose worker died; or return why not, and the task to blame."""
        self.end(entry)
        self.deaths += 1
        self.dead.append(entry.nonce)
        task = self.at(entry.member)
        # Before its first task it may be an input that kills, and so the first task that is to blame; or nothing of it.
        blamed = min(entry.starts) if task is None else task
        deaths = self._blamed.setdefault((blamed, task is None), [])
        deaths.append(error)
        key = self.plan.key(blamed)
        if task is not None and self.plan.once(task):
            return key, _only_once(key, deaths)
        if len(deaths) >= self.terms.attempts * (1 if task is not None else _UNSURE):
            return key, given_up(f"task {key!r}", deaths, "was to begin" if task is None else "was running")
        try:
            self.again += len(self._look(0.0, dead=(entry.nonce,)))
        except StoreError as failed:
            failed.add_note(f"wukong: while the work of a worker was given to others: {error}")
            self.posted.fail(None, failed)
        return None

    def look(self) -> None:
        """Look in on the job, now and then, and start second copies of what straggles, if there are to be any."""
        if self.posted.over:
            return
        try:
            if self.dead and not self.ours:
                # The last request of a dead worker may reach a server after the sweep that gave its tasks to others.
                self.again += len(self._look(_EVER, dead=self.dead))
            for entry in self._late() if self.terms.stragglers else ():
                # What is finished there waits with it to be settled, and what was not begun waits for it.
                if any(flags & ONCE for flags in self.plan.columns.flags):
                    starts = [task for task in (entry.task, *entry.starts) if task is not None]
                    found = self._look(_EVER, late=[task for task in starts if not self.plan.once(task)])
                else:
                    found = self._look(_EVER, dead=(entry.nonce,))
                self.copies += entry.task in found
        except StoreError:
            # Executors will find out themselves, and do something about it.
            pass

    @property
    def executors(self) -> list[str]:
        """The names of those at work."""
        return list(self._entries)

    def told(self) -> tuple[str, ...]:
        """Return what happened, for people; nothing if nothing did."""
        told = []
        if self.deaths:
            told.append(f"{self.deaths} worker processes died; {self.again} tasks were started again")
        if self.copies:
            told.append(f"{self.copies} stragglers were started a second time")
        return tuple(told)

    def renew(self) -> None:
        """Prolong the leases of all who live: in a worker, or in a thread of this process."""
        if not self.ours:
            job = self.job
            nonces = [*self.executors, *job.entered.copy()]
            self._driver.follow(renew(job.control.shards, nonces, job.costs.lease))

    def _look(self, patience: float, dead: Collection[str] = (), late: Collection[int] = ()) -> list[int]:
        """Have started what waits for nobody; return it."""
        # Leases may have run out while this process, or the thread that prolongs them, was kept from it.
        self.renew()
        _, found = self._driver.follow(sweep(self.job.control.shards, patience, dead, late))
        return self.posted.invoke_again(found) if found else []

    # --- stragglers ---------------------------------------------------------------------------------------------------

    def _late(self) -> list[Entry]:
        """Return executors whose task is to have a second one."""
        now, plan = monotonic(), self.plan
        late: list[Entry] = []
        for entry in list(self._entries.values()):
            task = self.at(entry.member)
            if task != entry.task:
                entry.task, entry.since = task, now
            elif task is not None and now - entry.since >= _LEAST and task not in self._copied and not plan.once(task):
                if self.posted.busy() or self.posted.working >= self.posted.workers or not self.idle():
                    return []
                if self._straggles(entry, task, now - entry.since):
                    self._copied.add(task)
                    late.append(entry)
        return late

    def _straggles(self, entry: Entry, task: int, seconds: float) -> bool:
        """Whether a task that has run for so long in an executor is far behind others of its kind."""
        plan, columns = self.plan, self.plan.columns
        if self._sizes is None:
            self._sizes = Counter()
            for program, count in Counter(columns.program).items():
                self._sizes[columns.kinds[program]] += count
        self._catch_up(self.job.away)
        kind = plan.kind(task)
        lasted = self._lasted.get(kind, ())
        # Those that it has run before, lowest number first, are told of with its next request.
        silent = sum(start < task and plan.kind(start) == kind for start in entry.starts)
        enough = len(lasted) >= _SEEN and len(lasted) + silent >= self._sizes[kind] / 2
        return enough and seconds > _TIMES * median(lasted)

    def _catch_up(self, spans: Spans) -> None:
        """Read the spans that have come since."""
        numbers = spans.numbers
        for i in range(self._read, len(numbers) - 3, 4):
            self._lasted.setdefault(self.plan.kind(int(numbers[i])), []).append(numbers[i + 2])
        self._read = len(numbers) // 4 * 4


def _travels(record: m.Input) -> bool:
    """Whether an input is packed already."""
    return record.value.kind != m.INLINE or type(record.value.body) is fx.Framed


def _only_once(key: Hashable, deaths: Sequence[WorkerLost]) -> TaskLost:
    error = TaskLost(f"task {key!r} may run only once, and its worker died while it ran: {deaths[-1]}")
    error.pid, error.status = deaths[-1].pid, deaths[-1].status
    for note in getattr(deaths[-1], "__notes__", ()):
        error.add_note(note)
    return error
