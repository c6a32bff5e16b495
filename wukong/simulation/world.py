"""A job in virtual time: executors, a watcher and a client on the reference store, through the faults of one seed.

The executors are the real core; every effect is a step at which it may be late, die, or be told twice. The clock jumps
from event to event, and everything that happens is decided by the seed, so a failing seed replays exactly.

What must hold of every run:

- the client gets the right results, before a bound on virtual time;
- one attempt wins each task, and no attempt is given to two executors;
- no task is given to anybody before all its inputs are committed, nor to an executor whose lease is over;
- a value is held only by who asked to;
- where nobody dies or stalls, every task runs once, nothing is computed again and the watcher finds nobody lapsed,
  whatever the network does;
- a value that a record names as stored is there: the store loses nothing here, so nobody ever finds it lacking;
- after release nothing is left in the records, nor in the value store but what an executor killed later had written.
"""

from collections import Counter
from collections.abc import Callable, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

from wukong.cost import Costs, Estimates
from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.core import Executor
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.protocol.sharding import home
from wukong.simulation.faults import Faults
from wukong.simulation.graphs import RandomSchedule

LEASE = 5.0
SWEEP = 2.0
BOUND = 2000.0
#: A millisecond for a request, 1 GB/s, 5 ms for an invocation.
COSTS = Costs(1e-3, 1e9, 5e-3, lease=LEASE, attempts=1000)


class Violation(AssertionError):  # noqa: N818 - it is the name of what is looked for
    """A run broke what must hold; the message has the seed and the last events."""


class World:
    """One simulated job.

    Parameters
    ----------
    seed : int
        Decides the graph, the faults and every latency.
    shard : type
        The control store; tests put broken ones here.
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
    moved : int
        Bytes written to the value store and read from it.
    took : float
        Seconds until the last output was settled.
    """

    def __init__(
        self,
        seed: int,
        shard: type[Shard] = Shard,
        executor: type[Executor] = Executor,
        faults: Faults | None = None,
        costs: Costs = COSTS,
        size: int | None = None,
    ) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.plan = RandomSchedule(random, random.randint(1, 16) if size is None else size)
        drawn = Faults.drawn(random)
        self.faults = drawn if faults is None else faults
        self.costs = costs
        self.shards = [shard() for _ in range(random.choice([1, 1, 2, 3]))]
        self.stored: dict[tuple[int, int], int] = {}
        self.now = 0.0
        self.trace: list[str] = []
        self.happened: Counter[str] = Counter()
        self.tally = Tally(executors=0)
        self.moved = 0
        self.took = 0.0
        self.released = False
        self.results: list[int] | None = None
        self._executor = executor
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0
        self._entries = 0
        self._granted: dict[tuple[int, int], str] = {}
        self._won: dict[int, int] = {}
        self._estimates = Estimates(1e-3)
        self._calm = not self.faults.death and not self.faults.stall

    def run(self) -> "World":
        """Run the job to its end.

        Raises
        ------
        Violation
            If something that must hold did not.
        """
        try:
            self._start(self._client(), "client")
            self._at(SWEEP, self._watch)
            while self._events:
                self.now, _, event = heappop(self._events)
                if self.now > BOUND:
                    raise Violation("the job has not ended")
                event()
            self._check_end()
        except Exception as error:
            trace = "\n  ".join(self.trace[-40:])
            raise Violation(f"seed {self.seed}: {error!r}\n  {trace}") from error
        return self

    # --- time -------------------------------------------------------------------------------------------------------

    def _at(self, delay: float, event: Callable[[], object]) -> None:
        self._order += 1
        heappush(self._events, (self.now + delay, self._order, event))

    def _chance(self, probability: float, what: str) -> bool:
        if probability and self.random.random() < probability:
            self.happened[what] += 1
            return True
        return False

    def _start(self, steps: Generator[fx.Effect, Any, Any], name: str) -> None:
        self._at(self.random.expovariate(1 / 0.005), lambda: self._resume(steps, name, None))

    def _resume(self, steps: Generator[fx.Effect, Any, Any], name: str, answer: Any) -> None:
        """Let one process take its next step, and let that step fail as the seed has it."""
        try:
            effect = steps.send(answer)
        except StopIteration as end:
            if isinstance(end.value, Tally):
                self.tally.add(end.value)
            return
        self.trace.append(f"{self.now:.4f} {name}: {effect}")
        delay = self.random.expovariate(1 / 0.002)
        if isinstance(effect, fx.Run):
            delay += self.plan.seconds(effect.task)
        elif isinstance(effect, fx.Pause):
            delay += effect.seconds
        elif isinstance(effect, fx.Put | fx.Fetch):
            delay += self._move(effect) / self.costs.bandwidth
        mortal = name != "client"
        if mortal and self._chance(self.faults.stall, "stall"):
            delay += LEASE * self.random.choice([1.1, 3.0])
        if mortal and self._chance(self.faults.death, "death before a step"):
            self.trace.append(f"{self.now:.4f} {name}: dies before it")
            return
        self._at(delay, lambda: self._perform(steps, name, effect, mortal))

    def _move(self, effect: fx.Put | fx.Fetch) -> int:
        """Count the bytes that an effect moves, and return them."""
        if isinstance(effect, fx.Put):
            values = [body for _, _, body in effect.frames]
        else:
            values = [self.stored[name] for name in effect.names if name in self.stored]
        nbytes = sum(map(self.plan.nbytes, values))
        self.moved += nbytes
        return nbytes

    def _perform(self, steps: Generator[fx.Effect, Any, Any], name: str, effect: fx.Effect, mortal: bool) -> None:
        answer = self._carry_out(effect, name)
        if isinstance(effect, fx.Ask):
            # A late copy of the opening itself would open the job again, for its TTL to end: the one thing left to it.
            if name != "client" and self._chance(self.faults.echo, "late copy of a request"):
                self._at(self.random.choice([0.01, 1.0, 10.0]), lambda: self._apply(effect, name, echo=True))
            if self._chance(self.faults.reply_lost, "reply lost"):
                self._at(0.5, lambda: self._perform(steps, name, effect, mortal))
                return
        if mortal and self._chance(self.faults.death, "death after a step"):
            self.trace.append(f"{self.now:.4f} {name}: dies after {type(effect).__name__}")
            return
        self._resume(steps, name, answer)

    # --- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect, name: str) -> Any:
        match effect:
            case fx.Ask():
                return self._apply(effect, name)
            case fx.Run(task, values):
                return fx.Ran(self.plan.run(task, values), self.plan.seconds(task))
            case fx.Fetch(names):
                return [self._read(task, attempt) for task, attempt in names]
            case fx.Put(frames):
                for task, attempt, body in frames:
                    self.stored[task, attempt] = body
            case fx.Drop(names):
                for pair in names:
                    self.stored.pop(pair, None)
            case fx.Invoke(tasks, per):
                for start in range(0, len(tasks), per):
                    self._invoke(tasks[start : start + per])
            case fx.Finish():
                self.took = self.now
            case fx.Pause():
                return self.random.random() < 0.2
            case fx.Fail(task, error):
                raise Violation(f"task {task} failed: {error!r}")
        return None

    def _apply(self, effect: fx.Ask, name: str, echo: bool = False) -> m.Reply:
        request = effect.request
        shard = self.shards[effect.shard]
        before = dict(shard.active)
        reply = shard.apply(request, self.now)
        self._check_records(shard, before)
        if reply.status == m.RUNNING and not echo:
            if isinstance(request, m.Claim):
                self._check_grants(reply.body, name)
            elif isinstance(request, m.Commit | m.Arrive):
                for outcome, settlement in zip(request.outcomes, reply.body, strict=True):
                    if isinstance(request, m.Commit) and settlement.verdict in (m.OK, m.HOLDING):
                        winner = self._won.setdefault(outcome.task, outcome.attempt)
                        if winner != outcome.attempt:
                            raise Violation(f"attempts {winner} and {outcome.attempt} of task {outcome.task} both won")
                    if settlement.verdict == m.HOLDING and not outcome.hold:
                        raise Violation(f"the value of task {outcome.task} is to be held, but nobody asked for that")
                    self._check_grants(settlement.granted, name)
        return reply

    def _check_records(self, shard: Shard, before: dict[int, Any]) -> None:
        for task, active in shard.active.items():
            if active == before.get(task):
                continue
            if active.state == states.CLAIMED and shard.executors[active.owner].deadline < self.now:
                raise Violation(f"task {task} was given to {active.owner}, whose lease is over")
            if task in shard.done and (len(self.shards) == 1 or active.state == states.CLAIMED):
                raise Violation(f"task {task} has been committed and is to run again")
        if shard.arrived.keys() & shard.done.keys():
            raise Violation("edges are kept of tasks that have been committed")

    def _check_grants(self, grants: tuple[m.Grant, ...], name: str) -> None:
        for grant in grants:
            if grant.committed is not None or grant.task == m.CLIENT:
                continue
            early = [p for p in self.plan.inputs(grant.task) if p not in self._won]
            if early:
                raise Violation(f"task {grant.task} was given away before its inputs {early} were committed")
            if self._calm and grant.attempt > 1:
                raise Violation(f"task {grant.task} is to run a second time though nobody died")
            owner = self._granted.setdefault((grant.task, grant.attempt), name)
            if owner != name:
                raise Violation(f"attempt {grant.attempt} of task {grant.task} was given to {owner} and to {name}")

    def _read(self, task: int, attempt: int) -> Any:
        if (task, attempt) not in self.stored and not self.released and task not in self._used_up():
            raise Violation(f"the value of task {task}, attempt {attempt}, is lacking")
        return self.stored.get((task, attempt), fx.LACKING)

    def _used_up(self) -> set[int]:
        """Return the tasks whose values all consumers are done with: a late executor may still ask for one."""
        shards = self.shards
        return {task for task in self._won if task not in shards[home(task, len(shards))].values}

    # --- processes --------------------------------------------------------------------------------------------------

    def nonce(self, starts: list[int]) -> str:  # noqa: ARG002 - a broken world in the tests names executors by tasks
        """Return the name of an executor entered now."""
        return f"e{self._entries}"

    def _invoke(self, tasks: list[int]) -> None:
        if self._chance(self.faults.never, "invocation lost"):
            return
        for _ in range(1 + self._chance(self.faults.twice, "invocation doubled")):
            self._entries += 1
            context = Context(
                self.plan,
                self.costs,
                self._estimates,
                self._pack,
                lambda _, body: int(body),
                lambda: self.random.random() < 0.3,
                len(self.shards),
            )
            self._start(self._executor(self.nonce(tasks), context).walk(tasks), f"e{self._entries}")

    def _pack(self, value: int) -> fx.Packed:
        nbytes = self.plan.nbytes(value)
        return fx.Packed(nbytes <= 1000, nbytes, value)

    def _watch(self) -> None:
        """Find lapsed executors and lost invocations, again and again while the job is open."""
        if self.released:
            return
        found: list[int] = []
        for shard in self.shards:
            reply = shard.apply(m.Sweep(SWEEP), self.now)
            if reply.body:
                if self._calm and reply.body[0]:
                    raise Violation(f"the owners of tasks {reply.body[0]} have lapsed though nobody died")
                found.extend((*reply.body[0], *reply.body[1]))
        if found:
            self.trace.append(f"{self.now:.4f} watcher: found {found}")
        for task in found:
            self._invoke([task])
        self._at(SWEEP, self._watch)

    def _client(self) -> Generator[fx.Effect, Any, None]:
        """Open the shards, start the leaves, wait for the outputs, take them, release everything."""
        shards, plan = len(self.shards), self.plan
        for shard in range(shards):
            edges = tuple(m.Edge(leaf, 1) for leaf in plan.leaves if home(leaf, shards) == shard)
            root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), edges)
            yield fx.Ask(shard, m.Arrive("client", 1, LEASE, (root,)))
        yield fx.Invoke(plan.leaves, 2)
        while True:
            reply = yield fx.Ask(0, m.Probe((m.CLIENT,)))
            if reply.body[0].state == states.READY:
                break
            yield fx.Pause(0.5)
        reply = yield fx.Ask(0, m.Claim("client", 2, LEASE, ((m.CLIENT, tuple(plan.outputs)),)))
        results = {}
        for task, attempt, value in reply.body[0].inputs:
            results[task] = value.body if value.kind == m.INLINE else (yield fx.Fetch([(task, attempt)]))[0]
        self.results = [results[task] for task in plan.outputs]
        for number in range(shards):
            yield fx.Ask(number, m.Release("client", 3, LEASE, everything=True))
        self.stored.clear()
        self.released = True

    def _check_end(self) -> None:
        if self._calm and (self.tally.recomputed or self.tally.lost):
            raise Violation("something was computed twice though nobody died")
        if self.results != self.plan.results():
            raise Violation(f"wrong results: {self.results}, not {self.plan.results()}")
        for shard in self.shards:
            if shard.open or shard.done or shard.active or shard.values:
                raise Violation("records are left after release")
        if self.stored and not (self.happened["death before a step"] or self.happened["death after a step"]):
            raise Violation(f"values are left after release: {self.stored}")
