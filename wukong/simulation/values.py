"""The value store of a simulated job, which may lose what it has."""

from random import Random
from typing import Any

from wukong.executor import effects as fx
from wukong.simulation.graphs import RandomSchedule


class Values:
    """The values of one job by task and attempt, and what was moved of them.

    Parameters
    ----------
    plan : RandomSchedule
        Says how large values are.
    fate : Random
        Decides what is lost.

    Attributes
    ----------
    stored : dict
        What is there.
    wrote : dict
        Who wrote it.
    moved : int
        Bytes written and read.
    """

    def __init__(self, plan: RandomSchedule, fate: Random) -> None:
        self.stored: dict[tuple[int, int], int] = {}
        self.wrote: dict[tuple[int, int], Any] = {}
        self.moved = 0
        self._plan = plan
        self._fate = fate

    def move(self, effect: fx.Put | fx.Fetch) -> int:
        """Count the bytes that an effect moves, and return them."""
        if isinstance(effect, fx.Put):
            values = [body for _, _, body in effect.frames]
        else:
            values = [self.stored[name] for name in effect.names if name in self.stored]
        nbytes = sum(map(self._plan.nbytes, values))
        self.moved += nbytes
        return nbytes

    def put(self, frames: list[tuple[int, int, Any]], who: Any) -> None:
        """Write values."""
        for task, attempt, body in frames:
            self.stored[task, attempt] = body
            self.wrote[task, attempt] = who

    def read(self, name: tuple[int, int]) -> Any:
        """Return a value, or `LACKING`."""
        return self.stored.get(name, fx.LACKING)

    def drop(self, names: list[tuple[int, int]]) -> None:
        """Delete values."""
        for name in names:
            self.stored.pop(name, None)

    def lose(self) -> None:
        """Lose one value, or all."""
        if self._fate.random() < 0.3:
            self.stored.clear()
        else:
            del self.stored[self._fate.choice(list(self.stored))]
