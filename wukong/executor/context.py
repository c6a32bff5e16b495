"""What an executor is given of its job and its place, and what it counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wukong.cost import Costs, Estimates
from wukong.executor.effects import Packed


class Schedule(Protocol):
    """What an executor reads of a plan."""

    @property
    def outputs(self) -> Sequence[int]: ...
    def loaded(self, task: int) -> bool: ...
    def key(self, task: int) -> Any: ...
    def kind(self, task: int) -> int: ...
    def height(self, task: int) -> int: ...
    def inputs(self, task: int) -> Sequence[int]: ...
    def edges(self, task: int) -> Sequence[tuple[int, int]]: ...
    def uses(self, task: int) -> Sequence[tuple[int, int]]: ...
    def is_output(self, task: int) -> bool: ...
    def once(self, task: int) -> bool: ...


@dataclass(slots=True)
class Context:
    """What an executor is given.

    Attributes
    ----------
    plan : Schedule
        The static schedules.
    costs, estimates : Costs, Estimates
        What decides.
    pack : callable
        Makes a value ready to leave the executor. Pure.
    unpack : callable
        Undoes that, given the task and what travelled. Pure.
    busy : callable
        Whether the platform has more work than workers.
    shards : int
        Of the job's records.
    belongs : callable, optional
        Whether a task may run in workers like this one, None if all may. Others are left to be invoked where they do.
    """

    plan: Schedule
    costs: Costs
    estimates: Estimates
    pack: Callable[[Any], Packed]
    unpack: Callable[[int, Any], Any]
    busy: Callable[[], bool]
    shards: int = 1
    belongs: Callable[[int], bool] | None = None


@dataclass(slots=True)
class Tally:
    """What executors did.

    Attributes
    ----------
    executors, tasks : int
        Executors entered; tasks they ran.
    becomes, invocations : int
        Tasks an executor went on to itself; tasks handed to others.
    writes, held : int
        Values written to the value store; large values that were accepted unwritten.
    recomputed, lost : int
        Values computed again because they were nowhere; outcomes that came second.
    retried : int
        Tasks run again after they had raised; what does that counts it.
    """

    executors: int = 1
    tasks: int = 0
    becomes: int = 0
    invocations: int = 0
    writes: int = 0
    held: int = 0
    recomputed: int = 0
    lost: int = 0
    retried: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of other executors."""
        for name in Tally.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
