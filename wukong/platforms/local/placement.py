"""Where the tasks of a job belong: in threads of the client, or in processes. Not who has time for them.

Of some tasks somebody said where they are to run; these are *pinned*.
"""

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Note(NamedTuple):
    """What a worker process is told of a placement.

    Attributes
    ----------
    version : int
        Grows with each change.
    everything : bool
        Whether all tasks belong in processes.
    kinds : collection of int
        Else the kinds (see `wukong.plan.reading.Reading.kind`) that do.
    stuck : collection of int
        Tasks of these kinds that do not.
    """

    version: int = 0
    everything: bool = False
    kinds: Collection[int] = ()
    stuck: Collection[int] = ()


_NOTHING: Final[Mapping[int, bool]] = MappingProxyType({})


class Placement:
    """All tasks stay in the client.

    Parameters
    ----------
    pinned : mapping of int to bool, optional
        For some tasks, whether they have to run in a process; the others in a thread.
    """

    #: Whether threads may run what belongs in processes, for as long as there are none.
    may_stay: bool = True
    note = Note()

    def __init__(self, pinned: Mapping[int, bool] = _NOTHING) -> None:
        self.pinned = pinned

    def away(self, task: int) -> bool:  # noqa: ARG002
        """Whether a task belongs in a process."""
        return False


class InProcesses(Placement):
    """All tasks belong in processes that are not pinned elsewhere."""

    may_stay = False
    note = Note(everything=True)

    def away(self, task: int) -> bool:
        """See `Placement`."""
        return self.pinned.get(task, True)


class ByKind(Placement):
    """Tasks of some kinds belong in processes; which they are becomes known while the job runs.

    Parameters
    ----------
    kind : callable
        Of a task.
    stuck : callable
        Called at the first move; returns the tasks that cannot travel, each with the reason.
    pinned : mapping of int to bool, optional
        See `Placement`.
    """

    def __init__(
        self,
        kind: Callable[[int], int],
        stuck: Callable[[], dict[int, str]],
        pinned: Mapping[int, bool] = _NOTHING,
    ) -> None:
        super().__init__(pinned)
        self.may_stay = not any(pinned.values())
        self._kind = kind
        self._look_for_stuck = stuck
        self._stuck: dict[int, str] = {}
        self._moved: frozenset[int] = frozenset()

    def away(self, task: int) -> bool:
        """See `Placement`."""
        moved, pinned = self._moved, self.pinned
        if pinned and task in pinned:
            return pinned[task]
        return bool(moved) and self._kind(task) in moved and task not in self._stuck

    def move(self, kind: int) -> None:
        """Let tasks of a kind run in processes from now on."""
        if not self.note.version:
            self._stuck = self._look_for_stuck()
        self._change(self._moved | {kind})

    def move_back(self, kind: int) -> None:
        """Let tasks of a kind stay in the client after all."""
        self._change(self._moved - {kind})

    def keep(self, task: int, reason: str) -> None:
        """Let one task stay in the client, because it, or an input of it, cannot travel."""
        self._stuck[task] = reason
        self._change(self._moved)

    def _change(self, moved: frozenset[int]) -> None:
        self._moved = moved
        self.note = Note(self.note.version + 1, False, moved, frozenset(self._stuck))
