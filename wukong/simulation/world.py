"""A job in virtual time: executors and a client on the reference store, through the faults of one seed.

The executors are the real core, the client follows the real steps of launch, watch and repair; every effect is a step
at which a process may be late, die, or be told twice. The clock jumps from event to event, and everything that happens
is decided by the seed, so a failing seed replays exactly.

Besides what `wukong.simulation.witness` sees with every request, this must hold of every run:

- the client gets the right results, or learns how else the job ended: the error of the task that raises, `TaskLost` of
  one that always kills its executor, or that it was cancelled;
- that happens within 100 s of virtual time and up to 60 s more for each fault so far (`PER_FAULT`, `CHEAP`);
- where nobody dies, nothing is computed twice, whatever the network does;
- a value that a record names as stored is there, unless a shard forgot that it was used up;
- after release nothing is left in the records, nor in the value store but what executors had written that died then.
"""

from collections import Counter
from collections.abc import Callable, Generator
from copy import copy
from dataclasses import replace
from heapq import heappop, heappush
from random import Random
from typing import Any

from wukong.cost import Costs, Estimates
from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.core import Executor
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home
from wukong.scheduler import launch
from wukong.simulation.client import Client, End, Note
from wukong.simulation.faults import DEADLY, Dice, Faults
from wukong.simulation.graphs import RandomSchedule
from wukong.simulation.witness import Violation, Witness

__all__ = ["BOUND", "COSTS", "LEASE", "PER_FAULT", "Violation", "World"]

LEASE = 5.0
#: Seconds until a job without faults has to be at its end, and how many more a fault may cost: a stall of three leases,
#: a clock that is three behind, a lease to lapse and two looks make 40. Some cost less.
BOUND, PER_FAULT = 100.0, 60.0
CHEAP = {"echo": 0, "twice": 0, "reply": 1, "notice": 1, "throttle": 2, "cold": 3, "never": 10, "late": 10, "skew": 10}
#: A millisecond for a request, 1 GB/s, 5 ms for an invocation.
COSTS = Costs(1e-3, 1e9, 5e-3, lease=LEASE, attempts=1000)
#: How often a task that always kills its executor may do so.
ATTEMPTS = 6


class TaskRaised(Exception):  # noqa: N818 - what a task raises in a simulated run
    """The error of the task that raises."""


class Process:
    """One entry of an executor or one life of a client: steps that may end anywhere."""

    __slots__ = ("born", "dead", "mortal", "name", "nonce", "pausing", "step", "steps")

    def __init__(
        self, name: str, nonce: str, steps: Generator[fx.Effect, Any, Any], born: float, mortal: bool = True
    ) -> None:
        self.name = name
        self.nonce = nonce
        self.steps = steps
        self.born = born
        self.mortal = mortal
        self.dead = False
        self.pausing = False
        self.step = 0


class World:
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
    moved : int
        Bytes written to the value store and read from it.
    took : float
        Seconds until the last output was settled.
    end : End
        How the job ended.
    """

    #: After so many steps something runs in circles; 30 tasks through all faults at their worst take 9,000.
    most_steps = 50_000

    def __init__(
        self,
        seed: int,
        shard: Callable[[], Shard] = Shard,
        executor: type[Executor] = Executor,
        faults: Faults | None = None,
        costs: Costs = COSTS,
        size: int | None = None,
    ) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        few = random.randint(1, 16)
        self.plan = plan = RandomSchedule(random, few if size is None else size)
        self.faults = faults = Faults.drawn(Dice.of(seed, "faults")) if faults is None else faults
        self._dice = Dice(seed, faults)
        self._fate = fate = Dice.of(seed, "fate")
        self.costs = replace(costs, attempts=ATTEMPTS) if faults.memory < 0 else costs
        self.shards = [shard() for _ in range(random.choice([1, 1, 2, 3]))]
        self.stored: dict[tuple[int, int], int] = {}
        self.now = 0.0
        self.trace: list[tuple[float, str, object]] = []
        self.happened: Counter[str] = Counter()
        self.covered: Counter[tuple[str, int]] = Counter()
        self.tally = Tally(executors=0)
        self.moved = 0
        self.took = 0.0
        self.generations = [0] * len(self.shards)
        self.steps = 0
        self.note: Note | None = None
        self.end: End | None = None
        self.ending = self.cancelled = False
        self._executor = executor
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0
        self._entries = 0
        self._lives = 0
        self._client: Process | None = None
        self._calm = not any(getattr(faults, kind) for kind in DEADLY)
        self._witness = Witness(plan, len(self.shards), self._calm)
        self._estimates = Estimates(1e-3)
        self._bound = BOUND
        self._requests = 0
        self._clocks = [0.0] * len(self.shards)
        self._told = fate.random() < 0.5  # whether the client hears of deaths at once
        self._dead: list[str] = []
        self._wrote: dict[tuple[int, int], Process] = {}
        self._runs: dict[int, float] = {}
        self._late: set[int] = set()
        self._killer, self._kills = fate.choice(plan.tasks), faults.memory
        self._raiser = fate.choice(plan.tasks) if faults.error else None
        self._fail_overs = self._plan_fail_overs(faults.forget)

    def run(self) -> "World":
        """Run the job to its end.

        Raises
        ------
        Violation
            If something that must hold did not.
        """
        try:
            self._enter_client()
            self._plan_ends()
            events = self._events
            while events:
                self.now, _, event = heappop(events)
                self.steps += 1
                if self.now > self._bound and self.end is None:
                    raise Violation("the job has not ended")
                if self.steps > self.most_steps:
                    raise Violation("the job runs in circles")
                event()
            self._check_end()
        except Exception as error:
            trace = "\n  ".join(f"{now:.4f} {name}: {what}" for now, name, what in self.trace[-40:])
            raise Violation(f"seed {self.seed}: {error!r}\n  {trace}") from error
        return self

    # --- time -------------------------------------------------------------------------------------------------------

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
            self.covered[kind, self._state(task)] += 1

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
            if isinstance(end.value, Tally):
                self.tally.add(end.value)
            return
        self.trace.append((self.now, process.name, effect))
        delay = self.random.expovariate(1 / 0.002)
        kind = type(effect)
        process.pausing = kind is fx.Pause
        if kind is fx.Run:
            delay += self._work(process, effect)  # type: ignore[arg-type]
        elif kind is fx.Pause:
            delay += effect.seconds  # type: ignore[union-attr]
        elif kind is fx.Put or kind is fx.Fetch:
            delay += self._move(effect) / self.costs.bandwidth  # type: ignore[arg-type]
        if process.mortal:
            if self._falls("stall", process, effect):
                delay += LEASE * (1.1 if self._fate.random() < 0.5 else 3.0)
            elif delay > LEASE / 2:
                self._at(LEASE / 2, lambda step=process.step: self._renew(process, step))  # type: ignore[misc]
            if self._falls("death", process, effect):
                self._die(process)
                return
        step = process.step
        self._at(delay, lambda: self._perform(process, effect, 0) if process.step == step else None)

    def _renew(self, process: Process, step: int) -> None:
        """Renew the lease of an executor that is at its task: somebody outside the task does so."""
        if not process.dead and process.step == step:
            for number in range(len(self.shards)):
                self._apply(fx.Ask(number, m.Renew(process.nonce, LEASE)), process)
            self._at(LEASE / 2, lambda: self._renew(process, step))

    def _work(self, process: Process, effect: fx.Run) -> float:
        """Return how long a task runs this time."""
        seconds = self.plan.seconds(effect.task)
        self._runs.setdefault(effect.task, self.now)
        if self._falls("straggler", process, effect):
            seconds = max(20 * seconds, 8.0)
        return seconds

    def _move(self, effect: fx.Put | fx.Fetch) -> int:
        """Count the bytes that an effect moves, and return them."""
        if isinstance(effect, fx.Put):
            values = [body for _, _, body in effect.frames]
        else:
            values = [self.stored[name] for name in effect.names if name in self.stored]
        nbytes = sum(map(self.plan.nbytes, values))
        self.moved += nbytes
        return nbytes

    def _perform(self, process: Process, effect: fx.Effect, again: int) -> None:
        if process.dead:
            return
        kind = type(effect)
        if process.mortal and self.faults.limit and self.now - process.born > self.faults.limit:
            self._note("limit", process, effect)
            self._die(process)
            return
        if kind is fx.Run and effect.task == self._killer and self._kills:  # type: ignore[union-attr]
            self._kills -= 1
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
            if self._may_echo(effect) and self._falls("echo", process, effect):  # type: ignore[arg-type]
                after = self._fate.choice([0.01, 1.0, 10.0])
                self._at(after, lambda: self._apply(effect, process, echo=True))  # type: ignore[arg-type]
            if again < 5 and self._falls("reply", process, effect):
                self._at(0.5, lambda: self._perform(process, effect, again + 1))
                return
        if process.mortal and self._falls("death", process, effect):
            self._die(process)
            return
        self._resume(process, answer)

    @staticmethod
    def _may_echo(effect: fx.Ask) -> bool:
        """Whether a copy may come late. That of an opening would open the job again, for its TTL to end."""
        request = effect.request
        return not (type(request) is m.Arrive and request.outcomes[0].task == m.CLIENT)

    # --- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect, process: Process) -> Any:
        match effect:
            case fx.Ask():
                return self._apply(effect, process)
            case fx.Run(task, values):
                self._runs.pop(task, None)
                self._late.discard(task)
                if task == self._raiser:
                    self._note("error", process, effect)
                    return fx.Raised(TaskRaised(f"task {task}"))
                return fx.Ran(self.plan.run(task, values), self.plan.seconds(task))
            case fx.Fetch(names):
                return [self._read(task, attempt) for task, attempt in names]
            case fx.Put(frames):
                for task, attempt, body in frames:
                    self.stored[task, attempt] = body
                    self._wrote[task, attempt] = process
            case fx.Drop(names):
                for pair in names:
                    self.stored.pop(pair, None)
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
        self._requests += 1
        if self._fail_overs:
            self._fail_over()
        if self._falls("skew", process, effect):
            offset = self._clocks[number] + LEASE * self._fate.uniform(-2, 2)
            self._clocks[number] = min(max(offset, -3 * LEASE), 3 * LEASE)
        now = self.now + self._clocks[number]
        return self._witness.apply(number, self.shards[number], request, now, process.name, echo)

    def _fail(self, error: BaseException) -> None:
        """End the job, from where it failed: whoever does so may die before every shard knows."""
        expected = isinstance(error, TaskRaised) or (isinstance(error, TaskLost) and self.faults.memory < 0)
        if not expected:
            raise Violation(f"a task failed: {error!r}")
        steps = launch.cancel(len(self.shards), m.FAILED, type(error).__name__.encode())
        self._start(Process(f"failure of e{self._entries}", "", steps, self.now))

    def _read(self, task: int, attempt: int) -> Any:
        value = self.stored.get((task, attempt), fx.LACKING)
        if value is fx.LACKING and not self.ending and not self.happened["forget"] and not self.happened["repair"]:
            shard = self.shards[home(task, len(self.shards))]
            if task in shard.values and task in shard.done:
                raise Violation(f"the value of task {task}, attempt {attempt}, is lacking")
        return value

    def _state(self, task: int) -> int:
        shard = self.shards[home(task, len(self.shards))]
        active = shard.active.get(task)
        if active is not None:
            return active.state
        return states.SETTLED if task in shard.done else states.WAITING

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
                shards=len(self.shards),
            )
            nonce = self.nonce(tasks)
            delay = 0.0
            if self._falls("late", None, effect):
                delay += LEASE * self._fate.uniform(1, 4)
            if self._falls("cold", None, effect):
                delay += self._fate.uniform(0.5, 3.0)
            steps = self._executor(nonce, context).walk(tasks)
            self._start(Process(f"e{self._entries}", nonce, steps, self.now + delay), delay)

    def _pack(self, value: int) -> fx.Packed:
        nbytes = self.plan.nbytes(value)
        return fx.Packed(nbytes <= 1000, nbytes, value)

    def _die(self, process: Process) -> None:
        process.dead = True
        if self._told and process.nonce:
            self._dead.append(process.nonce)

    # --- the client and what it is told -----------------------------------------------------------------------------

    def known_dead(self) -> list[str]:
        """Return the executors that the client knows to have ended since it last asked."""
        dead, self._dead = self._dead, []
        return dead

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

    def close(self, end: End) -> None:
        """Take the end of the job from its client, whose last deed is to clear the value store."""
        self.end = end
        self.stored.clear()

    def _enter_client(self) -> None:
        self._lives += 1
        name = f"client{self._lives}"
        self._client = Process(name, "", Client(self, name).live(), self.now, mortal=False)
        self._start(self._client)

    def _notify(self) -> None:
        """Wake the client if it waits, unless the notice is lost: then it looks for itself."""
        client = self._client
        if client is None or client.dead or self._falls("notice"):
            return
        step = client.step
        if client.pausing:
            self._at(0.001, lambda: self._resume(client, True) if client.step == step else None)

    # --- what is decided beforehand ---------------------------------------------------------------------------------

    def _plan_ends(self) -> None:
        """Say when the client dies, and when the user cancels."""
        for _ in range(self.faults.client):
            self._at(self._fate.choice([0.02, 0.2, 2.0]) * self._fate.random(), self._kill_client)
        if self.faults.cancel:
            self._at(self.faults.cancel, self._cancel)

    def _kill_client(self) -> None:
        client = self._client
        if self.end is None and client is not None and not client.dead:
            self._note("client", client)
            client.dead = True
            self._at(self._fate.choice([0.1, 3.0, 20.0]), self._enter_client)

    def _cancel(self) -> None:
        if self.end is None:
            self._note("cancel")
            self.cancelled = True

    def _plan_fail_overs(self, count: int) -> list[list[Any]]:
        """Say with which request shards are copied, and with which later one they become the copies again."""
        plans: list[list[Any]] = []
        for _ in range(count):
            first = self._fate.randint(1, 5 * len(self.plan.tasks))
            empty = self._fate.random() < 0.3
            shard = self._fate.randrange(len(self.shards))
            plans.append([first, first + self._fate.randint(1, 12), shard, None, empty])
        return plans

    def _fail_over(self) -> None:
        """Copy a shard, or restore one. One that forgot its release would keep its records until their TTL ends."""
        for plan in list(self._fail_overs):
            first, then, number, known, empty = plan
            shard = self.shards[number]
            if self._requests >= then:
                self._fail_overs.remove(plan)
                if not self.ending:
                    for task in [task for task in self.plan.tasks if home(task, len(self.shards)) == number]:
                        self.covered["forget", self._state(task)] += 1
                    self._note("forget")
                    self.restore(shard, None if empty else known)
                    self.generations[number] += 1
                    self._witness.forget(number, shard)
            elif self._requests >= first and known is None:
                plan[3] = self.snapshot(shard)

    @staticmethod
    def snapshot(shard: Shard) -> Any:
        """Return all that a shard knows; what is in it never changes, but for sets and executors."""
        known = {name: copy(value) for name, value in vars(shard).items() if name != "_apply"}
        known["arrived"] = {task: set(parents) for task, parents in shard.arrived.items()}
        known["executors"] = {nonce: copy(executor) for nonce, executor in shard.executors.items()}
        return known

    @staticmethod
    def restore(shard: Shard, known: Any) -> None:
        """Let a shard know no more than it did; nothing if `known` is None."""
        vars(shard).update(known or World.snapshot(type(shard)()))

    # --- the end ----------------------------------------------------------------------------------------------------

    def _check_end(self) -> None:
        end = self.end
        if end is None:
            raise Violation("nobody knows how the job ended")
        if self._calm and (self.tally.recomputed or self.tally.lost):
            raise Violation("something was computed twice though nobody died")
        if end.status == m.RUNNING:
            if self._raiser is not None or self.faults.memory < 0:
                raise Violation("the job has results, though one of its tasks cannot be done")
            if end.results != self.plan.results():
                raise Violation(f"wrong results: {end.results}, not {self.plan.results()}")
        elif end.status == m.CANCELLED:
            if not self.cancelled:
                raise Violation("the job was cancelled, but nobody asked for that")
        elif end.reason not in ((self._raiser is not None and b"TaskRaised"), (self.faults.memory < 0 and b"TaskLost")):
            raise Violation(f"the job failed: {end.reason!r}")
        for shard in self.shards:
            if shard.open or shard.done or shard.active or shard.values:
                raise Violation("records are left after release")
        left = [name for name in self.stored if not self._wrote[name].dead]
        if left:
            raise Violation(f"values are left after release: {left}")


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
