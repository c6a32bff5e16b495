"""A job in virtual time: executors and a client on the reference store, through the faults of one seed.

The executors are the real core, the client follows the real steps of launch, watch and repair; every effect is a step
at which a process may be late, die, or be told twice. The clock jumps from event to event, and everything that happens
is decided by the seed, so a failing seed replays exactly.

What must hold of every run is checked by `wukong.simulation.witness` with every request, and by
`wukong.simulation.verdict` at the end.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from wukong.cost import Costs, Estimates
from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.context import Context
from wukong.executor.core import Executor
from wukong.executor.session import Steps
from wukong.protocol import messages as m
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home
from wukong.scheduler import launch
from wukong.simulation.client import Client, Note
from wukong.simulation.clients import Clients
from wukong.simulation.faults import DEADLY, Dice, Faults
from wukong.simulation.graphs import RandomSchedule
from wukong.simulation.processes import BOUND, LEASE, PER_FAULT, Process
from wukong.simulation.records import Records
from wukong.simulation.values import Values
from wukong.simulation.verdict import check_end
from wukong.simulation.witness import Violation

__all__ = ["BOUND", "COSTS", "LEASE", "PER_FAULT", "Violation", "World"]

#: A millisecond for a request, 1 GB/s, 5 ms for an invocation.
COSTS = Costs(1e-3, 1e9, 5e-3, lease=LEASE, attempts=1000)
#: How often a task that always kills its executor may do so.
ATTEMPTS = 6
#: How often the value store loses something at most: if it did for ever, no job could end.
LOSSES = 10


class TaskRaised(Exception):  # noqa: N818 - what a task raises in a simulated run
    """The error of the task that raises."""


class World(Clients):
    """One simulated job.

    Parameters
    ----------
    seed : int
        Decides the graph, the faults and every latency.
    shard : callable
        Makes a shard of the control store; tests make broken ones.
    executor : type
        The executor core; tests put broken ones here.
    faults : Faults, optional
        What goes wrong; the seed decides it if None.
    costs : Costs
        What executors decide by; values take as long to travel as these say.
    size : int, optional
        Number of tasks; few, as the seed has it, if None.

    Attributes
    ----------
    happened : Counter
        How often each kind of fault happened.
    covered : Counter
        The same, by kind and state of the task that the step was about.
    took : float
        Seconds until the last output was settled.
    over : bool
        Whether the note of the job says that somebody has its end.
    calm : bool
        Whether nothing happens for which a task may run twice.
    """

    #: Keeps the records.
    keeps = Records

    def __init__(
        self,
        seed: int,
        shard: Callable[[], Shard] = Shard,
        executor: type[Executor] = Executor,
        faults: Faults | None = None,
        costs: Costs = COSTS,
        size: int | None = None,
    ) -> None:
        random = Random(seed)
        few = random.randint(1, 16)
        self.plan = plan = RandomSchedule(random, few if size is None else size)
        faults = Faults.drawn(Dice.of(seed, "faults")) if faults is None else faults
        super().__init__(seed, random, faults)
        fate = self._fate
        self.costs = replace(costs, attempts=ATTEMPTS) if faults.memory < 0 else costs
        shards = [shard() for _ in range(random.choice([1, 1, 2, 3]))]
        self.values = Values(plan, fate)
        self.took = 0.0
        self.note: Note | None = None
        self.over = False
        self._executor = executor
        self._entries = 0
        self.calm = not any(getattr(faults, kind) for kind in DEADLY)
        self.records = self.keeps(plan, shards, fate, faults.forget, self.calm)
        self._estimates = Estimates(1e-3)
        self._runs: dict[int, float] = {}
        self._late: set[int] = set()
        self._killer, self._kills_left = fate.choice(plan.tasks), faults.memory
        self._told = fate.random() < 0.5  # whether the client hears of deaths at once
        self.raiser = fate.choice(plan.tasks) if faults.error else None
        if faults.once:
            dice = Dice.of(seed, "once")
            plan.only_once.update(task for task in plan.tasks if dice.random() < faults.once)

    def run(self) -> "World":
        """Run the job to its end.

        Raises
        ------
        Violation
            If something that must hold did not.
        """
        try:
            self._begin()
            self._go()
            check_end(self)
        except Exception as error:
            trace = "\n  ".join(f"{now:.4f} {name}: {what}" for now, name, what in self.trace[-40:])
            raise Violation(f"seed {self.seed}: {error!r}\n  {trace}") from error
        return self

    # --- steps ------------------------------------------------------------------------------------------------------

    def _lasts(self, effect: fx.Effect, process: Process) -> float:
        kind = type(effect)
        if kind is fx.Run:
            return self._work(process, effect)  # type: ignore[arg-type]
        if kind is fx.Pause:
            return effect.seconds  # type: ignore[union-attr]
        if kind is fx.Put or kind is fx.Fetch:
            return self.values.move(effect) / self.costs.bandwidth  # type: ignore[arg-type]
        return 0.0

    def _kills(self, task: int) -> bool:
        if task != self._killer or not self._kills_left:
            return False
        self._kills_left -= 1
        return True

    def _work(self, process: Process, effect: fx.Run) -> float:
        """Return how long a task runs this time."""
        seconds = self.plan.seconds(effect.task)
        self._runs.setdefault(effect.task, self.now)
        if self._falls("straggler", process, effect):
            seconds = max(20 * seconds, 8.0)
        return seconds

    # --- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect, process: Process) -> Any:
        match effect:
            case fx.Ask():
                return self._apply(effect, process)
            case fx.Run(task, values):
                self.records.witness.run(task, process.name)
                if self.plan.once(task):
                    self._note("once", process, effect)
                self._runs.pop(task, None)
                self._late.discard(task)
                if task == self.raiser:
                    self._note("error", process, effect)
                    return fx.Raised(TaskRaised(f"task {task}"))
                return fx.Ran(self.plan.run(task, values), self.plan.seconds(task))
            case fx.Fetch(names):
                self._lose(process, effect)
                return [self._read(task, attempt) for task, attempt in names]
            case fx.Put(frames):
                self.values.put(frames, process)
                self._lose(process, effect)
            case fx.Drop(names):
                self.values.drop(names)
            case fx.Invoke(tasks, per):
                for start in range(0, len(tasks), per):
                    self._invoke(tasks[start : start + per], effect)
            case fx.Finish():
                self.took = self.now
                self._notify()
            case fx.Pause():
                return self.random.random() < 0.2
            case fx.Fail(task, error):
                self._fail(error)
        return None

    def _apply(self, effect: fx.Ask, process: Process, echo: bool = False) -> m.Reply:
        number, request = effect.shard, effect.request
        if self.faults.forget:
            self.records.fail_over(self._note_fail_over)
        if self._falls("skew", process, effect):
            self.records.jump(number, 2 * LEASE, 3 * LEASE)
        return self.records.apply(number, request, self.now, process.name, echo)

    def _note_fail_over(self, number: int) -> None:
        shards = len(self.records.shards)
        self._note("forget")
        for task in self.plan.tasks:
            if home(task, shards) == number:
                self.covered["forget", self.records.state(task)] += 1

    def _fail(self, error: BaseException) -> None:
        """End the job, from where it failed: whoever does so may die before every shard knows."""
        expected = isinstance(error, TaskRaised) or (isinstance(error, TaskLost) and self.may_lose_tasks())
        if not expected:
            raise Violation(f"a task failed: {error!r}")
        steps = launch.cancel(len(self.records.shards), m.FAILED, type(error).__name__.encode())
        self._start(Process(f"failure of e{self._entries}", "", steps, self.now))

    def may_lose_tasks(self) -> bool:
        """Whether the job may end with `TaskLost`: a task always kills, or may run only once, and that was in vain."""
        once = bool(self.plan.only_once) and any(self.happened[kind] for kind in DEADLY)
        return once or self.faults.memory < 0

    def _lose(self, process: Process, effect: fx.Effect) -> None:
        """Let the value store lose something, as the seed has it."""
        if self.values.stored and self.happened["lose"] < LOSSES and self._falls("lose", process, effect):
            self.values.lose()

    def _read(self, task: int, attempt: int) -> Any:
        value = self.values.read((task, attempt))
        excused = self.over or any(self.happened[kind] for kind in ("forget", "repair", "lose"))
        if value is fx.LACKING and not excused:
            shard = self.records.home(task)
            if task in shard.values and task in shard.done:
                raise Violation(f"the value of task {task}, attempt {attempt}, is lacking")
        return value

    # --- processes --------------------------------------------------------------------------------------------------

    def nonce(self, starts: list[int]) -> str:  # noqa: ARG002 - a broken world in the tests names executors by tasks
        """Return the name of an executor entered now."""
        return f"e{self._entries}"

    def _invoke(self, tasks: list[int], effect: fx.Effect) -> None:
        if self._falls("never", None, effect):
            return
        for _ in range(1 + self._falls("twice", None, effect)):
            self._entries += 1
            context = Context(
                plan=self.plan,
                costs=self.costs,
                estimates=self._estimates,
                pack=self._pack,
                unpack=lambda _, body: int(body),
                busy=lambda: self.random.random() < 0.3,
                shards=len(self.records.shards),
            )
            nonce = self.nonce(tasks)
            delay = 0.0
            if self._falls("late", None, effect):
                delay += LEASE * self._fate.uniform(1, 4)
            if self._falls("cold", None, effect):
                delay += self._fate.uniform(0.5, 3.0)
            steps = self._executor(nonce, context).walk(tasks)
            process = Process(f"e{self._entries}", nonce, steps, self.now + delay)
            self._start(process, delay)
            self._at(delay + LEASE / 2, partial(self._renew, process))

    def _pack(self, value: int) -> fx.Packed:
        nbytes = self.plan.nbytes(value)
        return fx.Packed(nbytes <= 1000, nbytes, value)

    # --- what clients see -----------------------------------------------------------------------------

    def known_dead(self) -> list[str]:
        """Return the executors that the client knows to have ended since it last asked."""
        dead, self._dead = self._dead, []
        return dead if self._told else []

    def late(self) -> list[int]:
        """Return the tasks that take far longer than they should, each once."""
        if not self.faults.straggler:
            return []
        late = [
            task
            for task, since in self._runs.items()
            if task not in self._late and self.now - since > max(3 * self.plan.seconds(task), 1.0)
        ]
        self._late.update(late)
        return late

    def close(self) -> None:
        """Clear the value store: the last deed of a client."""
        self.values.stored.clear()

    def _life(self, name: str, line: int) -> Steps:
        return Client(self, name, line).live()
