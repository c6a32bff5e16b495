"""Processes that take steps in virtual time, and how each step can fail: late, told twice, or the last one.

What a step does is not here (see `wukong.simulation.world`).
"""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

from wukong.executor import effects as fx
from wukong.executor.context import Tally
from wukong.protocol import messages as m
from wukong.simulation.client import End
from wukong.simulation.faults import Dice, Faults
from wukong.simulation.records import Records
from wukong.simulation.witness import Violation

LEASE = 5.0
#: Seconds until a job without faults has to be at its end, and how many more a fault may cost: a stall of three leases,
#: a clock that is three behind, a lease to lapse and two looks make 40. Some cost less.
BOUND, PER_FAULT = 100.0, 60.0
CHEAP = {
    "echo": 0,
    "twice": 0,
    "reply": 1,
    "notice": 1,
    "throttle": 2,
    "cold": 3,
    "never": 10,
    "late": 10,
    "skew": 10,
    "lose": 20,
    "once": 0,
}


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


class Processes(ABC):
    """The processes of one run, and its clock.

    Parameters
    ----------
    seed : int
        Decides which steps fail.
    random : Random
        Decides the latencies.
    faults : Faults
        What goes wrong.
    """

    #: After so many steps something runs in circles; 30 tasks through all faults at their worst take 9,000.
    most_steps = 50_000
    records: Records
    end: End | None

    def __init__(self, seed: int, random: Random, faults: Faults) -> None:
        self.seed = seed
        self.random = random
        self.faults = faults
        self.now = 0.0
        self.steps = 0
        self.trace: list[tuple[float, str, object]] = []
        self.happened: Counter[str] = Counter()
        self.covered: Counter[tuple[str, int]] = Counter()
        self.tally = Tally(executors=0)
        self._dice = Dice(seed, faults)
        self._fate = Dice.of(seed, "fate")
        self._limit = faults.limit or math.inf
        self._bound = BOUND
        self._dead: list[str] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0

    @abstractmethod
    def _lasts(self, effect: fx.Effect, process: Process) -> float:
        """Return how long a step takes beside its latency."""

    @abstractmethod
    def _kills(self, task: int) -> bool:
        """Say whether a task kills its executor this time."""

    @abstractmethod
    def _carry_out(self, effect: fx.Effect, process: Process) -> Any:
        """Do what a step does, and return its answer."""

    @abstractmethod
    def _apply(self, effect: fx.Ask, process: Process, echo: bool = False) -> m.Reply:
        """Carry out a request."""

    def _go(self) -> None:
        """Let things happen until nothing is left that could."""
        events = self._events
        while events:
            self.now, _, event = heappop(events)
            self.steps += 1
            if self.now > self._bound and self.end is None:
                raise Violation("the job has not ended")
            if self.steps > self.most_steps:
                raise Violation("the job runs in circles")
            event()

    def _at(self, delay: float, event: Callable[[], object]) -> None:
        self._order += 1
        heappush(self._events, (self.now + delay, self._order, event))

    def _falls(self, kind: str, process: Process | None = None, effect: fx.Effect | None = None) -> bool:
        """Say whether this fault happens, and note it."""
        if not self._dice.fall(kind):
            return False
        self._note(kind, process, effect)
        return True

    def _note(self, kind: str, process: Process | None = None, effect: fx.Effect | None = None) -> None:
        """Note a fault, and the state of the task it is about."""
        self.happened[kind] += 1
        self._bound += CHEAP.get(kind, PER_FAULT)
        self.trace.append((self.now, process.name if process else "world", f"fault: {kind}"))
        task = None if effect is None else about(effect)
        if task is not None:
            self.covered[kind, self.records.state(task)] += 1

    def _start(self, process: Process, delay: float = 0.0) -> None:
        self._at(delay + self.random.expovariate(1 / 0.005), lambda: self._resume(process, None))

    def _resume(self, process: Process, answer: Any) -> None:
        """Let one process take its next step, and let that step fail as the seed has it."""
        if process.dead:
            return
        process.step += 1
        try:
            effect = process.steps.send(answer)
        except StopIteration as end:
            process.over = True
            if isinstance(end.value, Tally):
                self.tally.add(end.value)
            return
        self.trace.append((self.now, process.name, effect))
        delay = self.random.expovariate(1 / 0.002)
        process.pausing = type(effect) is fx.Pause
        delay += self._lasts(effect, process)
        if self._falls("stall", process, effect):
            delay += LEASE * (1.1 if self._fate.random() < 0.5 else 3.0)
            process.asleep = self.now + delay
        if process.mortal and self._falls("death", process, effect):
            self._die(process)
            return
        step = process.step
        self._at(delay, lambda: self._perform(process, effect, 0) if process.step == step else None)

    def _renew(self, process: Process) -> None:
        """Renew the leases of an executor from outside its task, as long as its machine does not sleep."""
        if process.dead or process.over:
            return
        if self.now >= process.asleep:
            for number in range(len(self.records.shards)):
                self._apply(fx.Ask(number, m.Renew(process.nonce, LEASE)), process)
        self._at(LEASE / 2, lambda: self._renew(process))

    def _perform(self, process: Process, effect: fx.Effect, again: int) -> None:
        if process.dead:
            return
        kind = type(effect)
        if process.mortal and self.now - process.born > self._limit:
            self._note("limit", process, effect)
            self._die(process)
            return
        if kind is fx.Run and self._kills(effect.task):  # type: ignore[union-attr]
            self._note("memory", process, effect)
            self._die(process)
            return
        if kind is fx.Invoke and self._falls("throttle", process, effect):
            if again < 4:
                self._at(0.1 * 2**again, lambda: self._perform(process, effect, again + 1))
            else:
                self._at(0.0, lambda: self._resume(process, None))
            return
        answer = self._carry_out(effect, process)
        if kind is fx.Ask:
            if self._falls("echo", process, effect):
                after = self._fate.choice([0.01, 1.0, 10.0])
                self._at(after, lambda: self._apply(effect, process, echo=True))  # type: ignore[arg-type]
            if again < 5 and self._falls("reply", process, effect):
                self._at(0.5, lambda: self._perform(process, effect, again + 1))
                return
        if process.mortal and self._falls("death", process, effect):
            self._die(process)
            return
        self._resume(process, answer)

    def _die(self, process: Process) -> None:
        process.dead = True
        if process.nonce:
            self._dead.append(process.nonce)


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
