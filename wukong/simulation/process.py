"""What takes steps in a simulated run, and what a step is about."""

from collections.abc import Generator
from typing import Any

from wukong.executor import effects as fx
from wukong.protocol import messages as m


class Process:
    """One entry of an executor or one life of a client: steps that may end anywhere.

    Attributes
    ----------
    born, asleep : float
        When it was entered, and until when its machine stands still.
    mortal : bool
        Whether it may die with any step.
    dead, over : bool
        Whether it has died; whether it has come to its end.
    pausing : bool
        Whether it waits, and may be woken.
    step : int
        How many it has taken.
    """

    __slots__ = ("asleep", "born", "dead", "mortal", "name", "nonce", "over", "pausing", "step", "steps")

    def __init__(
        self, name: str, nonce: str, steps: Generator[fx.Effect, Any, Any], born: float, mortal: bool = True
    ) -> None:
        self.name = name
        self.nonce = nonce
        self.steps = steps
        self.born = born
        self.mortal = mortal
        self.asleep = 0.0
        self.dead = self.over = False
        self.pausing = False
        self.step = 0


def about(effect: fx.Effect) -> int | None:
    """Return the task that a step is about; of several, the first."""
    match effect:
        case fx.Run(task, _) | fx.Fail(task, _):
            return task
        case fx.Put(things) | fx.Fetch(things) | fx.Drop(things):
            return things[0][0] if things else None
        case fx.Invoke(tasks, _):
            return tasks[0]
        case fx.Ask(_, m.Claim() as request):
            return request.tasks[0][0] if request.tasks else None
        case fx.Ask(_, m.Commit() | m.Arrive() as request):
            return request.outcomes[0].task if request.outcomes[0].task != m.CLIENT else None
        case fx.Ask(_, m.Probe(tasks)):
            return tasks[0] if tasks and tasks[0] != m.CLIENT else None
    return None
