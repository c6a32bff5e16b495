"""What an executor has in hand of tasks that have run, on the way to their records.

Plain records; what is done with them is in `wukong.executor.settle`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from wukong.executor import effects as fx
from wukong.protocol import messages as m


class Finished(NamedTuple):
    """A finished attempt at a task, on its way to the store.

    Attributes
    ----------
    task, attempt : int
        Which attempt at which task.
    packed : Packed
        Its value.
    edges : tuple of Edge
        All its out-edges, the child this executor would rather go on with first.
    claims : int
        How many children it would keep.
    spent : list of (int, int)
        Inputs that are used up with it, each with its number of consumers.
    first : Value
        What is first said of where the value is.
    """

    task: int
    attempt: int
    packed: fx.Packed
    edges: tuple[m.Edge, ...]
    claims: int
    spent: list[tuple[int, int]]
    first: m.Value


class Computed(NamedTuple):
    """The value of a task that is done, computed again because it was lost; `used_up` if only lost ones need it."""

    task: int
    attempt: int
    packed: fx.Packed
    used_up: bool

    def restored(self) -> m.Outcome:
        """Say where the value is now."""
        inline, nbytes, body = self.packed
        value = m.Value(m.INLINE, nbytes, body) if inline else m.Value(m.STORED, nbytes)
        return m.Outcome(self.task, self.attempt, value, hold=self.used_up, settled=None)


@dataclass(slots=True)
class Settled:
    """What came of settling: tasks granted, tasks to invoke, stored values to delete, children to claim."""

    granted: list[m.Grant] = field(default_factory=list)
    ready: list[int] = field(default_factory=list)
    freed: list[tuple[int, int]] = field(default_factory=list)
    won: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def add(self, settlement: m.Settlement) -> None:
        """Add the answer to one outcome."""
        self.granted.extend(settlement.granted)
        self.ready.extend(settlement.ready)
        self.freed.extend(settlement.freed)


@dataclass(slots=True)
class Debt:
    """Inputs of a value that is only here: free only when these consumers are stored."""

    consumers: set[int]
    inputs: list[tuple[int, int]]


@dataclass(slots=True)
class Held:
    """A value that waits here for children that are not complete, and for how many seconds it still may."""

    finished: Finished
    waiting: list[m.Edge]
    budget: float

    def written(self) -> m.Outcome:
        """Say that the value is in the store now, and settle once more the edges it waited for."""
        done = self.finished
        value = m.Value(m.STORED, done.packed.nbytes)
        return m.Outcome(done.task, done.attempt, value, tuple(self.waiting), done.claims, settled=None)
