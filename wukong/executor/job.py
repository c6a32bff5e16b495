"""One compute, as its executors see it: the plan, the stores, and the platform that starts more of them."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wukong import serialize
from wukong.cost import Costs, Estimates
from wukong.events import Observer, Spans
from wukong.executor.context import Context, Schedule, Tally
from wukong.executor.effects import Packed
from wukong.storage.control.base import ControlStore
from wukong.storage.resp import Buffer
from wukong.storage.values.base import ValueStore


class Runnable(Schedule, Protocol):
    """A plan that can also be run: the whole of it, or a view that loads its segments (`wukong.plan.reading`)."""

    def load(self, tasks: Sequence[int]) -> None: ...
    def members(self, task: int) -> tuple[Hashable, ...]: ...
    def program(self, task: int) -> Any: ...
    def run(self, task: int, values: dict[int, Any]) -> Any: ...


class Invoker(Protocol):
    """What a job asks of its platform while it runs."""

    def invoke(self, tasks: Sequence[int], per: int) -> None:
        """Start executors on ready tasks, `per` tasks each."""

    def busy(self) -> bool:
        """Whether invocations wait for a worker."""

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until invocations wait for a worker; return whether they do."""

    @property
    def over(self) -> bool:
        """Whether nothing more is to begin; looked at before every task."""

    def finish(self) -> None:
        """Note that the results are ready."""

    def gone(self) -> None:
        """Note that the store knows nothing of the job: it is over, or forgotten."""

    def fail(self, key: Hashable, error: BaseException) -> None:
        """Note that the job has failed with this error of the task of this key; None if of no task."""


@dataclass(slots=True)
class Job:
    """One compute.

    Attributes
    ----------
    name : str
        Unique; every record and value of the job is kept under it.
    plan : Runnable
        What to run.
    control, values : stores
        Where records and values live. `values` is None where every value rides with its record.
    costs, estimates : Costs, Estimates
        What decides.
    pack, unpack : callable
        Make a value ready to leave an executor, and undo that where it rode with its record.
    observer : Observer, optional
        Told of each task.
    belongs : callable, optional
        See `wukong.executor.context.Context`.
    dropped : collection of int
        Tasks that nobody needs any more: those that have not begun do not run; looked at before every task.
    at_work : dict of int to int
        The task that each thread of this process runs now, by the thread's number.
    entered : set of str
        Executors in threads of this process.
    spans, away : Spans
        When tasks ran in this process, and in others.
    traffic : list of Counters
        How executors in other processes used a store.
    tally : Tally
        What all its executors did; `invoker` adds to it under its own lock.
    """

    name: str
    plan: Runnable
    control: ControlStore
    values: ValueStore | None
    costs: Costs
    estimates: Estimates
    pack: Callable[[Any], Packed]
    unpack: Callable[[Any], Any]
    invoker: Invoker
    observer: Observer | None = None
    belongs: Callable[[int], bool] | None = None
    dropped: Collection[int] = field(default_factory=set)
    at_work: dict[int, int] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)
    spans: Spans = field(default_factory=Spans)
    away: Spans = field(default_factory=Spans)
    traffic: list[tuple[int, ...]] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally(executors=0))

    def open(self, task: int, body: Any) -> Any:
        """Return the value of a task from what rode with its record; an error says which task's value it is."""
        return self._opened(task, self.unpack, body)

    def load(self, task: int, frame: Buffer) -> Any:
        """Return the value of a task from its frame in the value store; an error says which task's value it is."""
        return self._opened(task, serialize.loads, frame)

    def _opened(self, task: int, unpack: Callable[[Any], Any], body: Any) -> Any:
        try:
            return unpack(body)
        except Exception as error:
            error.add_note(f"wukong: the value of task {self.plan.key(task)!r} cannot be unpacked here")
            raise

    def context(self) -> Context:
        """Return what each executor of this job is given."""
        return Context(
            self.plan,
            self.costs,
            self.estimates,
            self.pack,
            self.open,
            self.invoker.busy,
            self.control.shards,
            self.belongs,
        )
