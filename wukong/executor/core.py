"""The executor: gather, run, settle, choose.

One `Executor` is one invocation walking a static schedule from the tasks it was started with. It runs a task, commits
it and settles its out-edges in one request, *becomes* the child it completed, keeps what is cheaper to run here than
to ship (clustering) and has the rest invoked. What it decides is all here; what it does is left to whoever drives the
generator (see `wukong.executor.effects`). It performs no I/O and reads no clock.

Three rules save traffic (after Wukong, SoCC '20, section 4):

- *claim before write*: a large value is first offered as `HELD`. If every child is then this executor's to run, it is
  never written; otherwise the store answers `WRITE`, and the value is written before the edge.
- *delayed I/O*: where only one child is incomplete, the value may stay here while waiting for it costs less than
  writing, and only while the platform has no other work.
- *small values ride with their edges* and come back with the claim: a fan-in of small values is one round trip.

A value that is only here has *debts*: its inputs may not be freed before its consumers are stored, for whoever has to
recompute it needs them. If this executor dies the debts are never paid, and the job's release frees them.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from wukong.cost import Costs, Estimates
from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.lineage import recompute
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.sharding import home

#: At most so many inputs are asked for in one request.
_PER_REQUEST = 4096
#: Children with more inputs than this ask for them after the claim, not with every edge that may complete them.
_WANTED = 64
#: Most outcomes in one request: a script holds up everybody else's.
_OUTBOX = 256

Steps = Generator[fx.Effect, Any, Any]


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


@dataclass(slots=True)
class Context:
    """What an executor is given of its job and its place."""

    plan: Schedule
    costs: Costs
    estimates: Estimates
    pack: Callable[[Any], fx.Packed]
    unpack: Callable[[Any], Any]
    busy: Callable[[], bool]
    shards: int = 1


@dataclass(slots=True)
class Tally:
    """What one executor did."""

    executors: int = 1
    tasks: int = 0
    becomes: int = 0
    invocations: int = 0
    writes: int = 0
    held: int = 0
    recomputed: int = 0
    lost: int = 0

    def add(self, other: "Tally") -> None:
        """Add the counts of another executor."""
        for name in Tally.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class _Done(NamedTuple):
    """A finished task on its way to the store."""

    task: int
    attempt: int
    packed: fx.Packed
    edges: tuple[m.Edge, ...]
    claims: int
    spent: list[tuple[int, int]]
    first: m.Value


@dataclass(slots=True)
class _Debt:
    """Inputs of a value that is only here: free only when these consumers are stored."""

    consumers: set[int]
    inputs: list[tuple[int, int]] = field(default_factory=list)


class _Ended(Exception):  # noqa: N818 - not an error: the job is over for this executor
    pass


class Executor:
    """One executor, named by its nonce.

    Parameters
    ----------
    nonce : str
        Name minted at this entry; a retried invocation has another.
    context : Context
        The job and the place.
    """

    __slots__ = (
        "_attempts",
        "_committed",
        "_context",
        "_debts",
        "_fresh",
        "_holding",
        "_local",
        "_mine",
        "_needs",
        "_nonce",
        "_outbox",
        "_plan",
        "_records",
        "_seq",
        "_shards",
        "_sizes",
        "_unloaded",
        "_written",
        "tally",
    )

    def __init__(self, nonce: str, context: Context) -> None:
        self._nonce = nonce
        self._context = context
        self._plan = context.plan
        self._shards = context.shards
        self._seq = 0
        self._mine: list[int] = []  # claimed tasks, a heap: lowest number first is depth first
        self._attempts: dict[int, int] = {}  # of claimed tasks that have not been run
        self._committed: dict[int, m.Value] = {}  # claimed tasks that only need their edges settled
        self._unloaded: list[int] = []  # taken, but their segments are not here yet
        self._records: dict[int, tuple[m.Input, ...]] = {}  # inputs that came with a claim
        self._local: dict[int, Any] = {}  # values at hand
        self._sizes: dict[int, int] = {}
        self._needs: dict[int, int] = {}  # why a value is still at hand: claimed children, outbox, holds
        self._outbox: list[_Done] = []
        self._written: set[tuple[int, int]] = set()  # values that no record names yet
        self._fresh = 0.0  # seconds of work in the outbox
        self._holding: dict[int, tuple[_Done, list[m.Edge], float]] = {}
        self._debts: dict[int, _Debt] = {}
        self.tally = Tally()

    def walk(self, starts: Sequence[int]) -> Generator[fx.Effect, Any, Tally]:
        """Walk the static schedule from `starts` until nothing is left that is this executor's to do."""
        try:
            yield from self._claim([(task, ()) for task in starts])
            while True:
                if self._outbox and (not self._mine or self._overdue(self._mine[0])):
                    yield from self._flush()
                elif self._mine:
                    yield from self._step(heappop(self._mine))
                elif self._holding:
                    yield from self._wait()
                else:
                    break
        except _Ended:
            if self._written:
                yield fx.Drop(sorted(self._written))
        return self.tally

    # --- gather -----------------------------------------------------------------------------------------------------

    def _overdue(self, task: int) -> bool:
        """Whether finished work would wait too long for company if `task` ran before it is settled."""
        context = self._context
        soon = self._fresh + context.estimates.seconds(context.plan.kind(task))
        return soon > context.costs.linger or len(self._outbox) >= _OUTBOX

    def _claim(self, tasks: Sequence[tuple[int, tuple[int, ...]]]) -> Steps:
        """Claim tasks and take what is granted; return how many were."""
        granted = 0
        for shard, group in self._by_home(tasks, lambda pair: pair[0]):
            for start in range(0, len(group), _PER_REQUEST):
                claim = m.Claim(self._nonce, *self._next(), tuple(group[start : start + _PER_REQUEST]))
                for grant in (yield from self._ask(shard, claim)):
                    self._take(grant)
                    granted += 1
        yield from self._load()
        return granted

    def _take(self, grant: m.Grant) -> bool:
        """Make a granted task mine; the same grant again changes nothing but the inputs that came with it."""
        task = grant.task
        if grant.inputs:
            self._records[task] = self._records.get(task, ()) + tuple(grant.inputs)
        if task in self._attempts:
            return False
        if grant.committed is not None:
            self._committed[task] = grant.committed
        self._attempts[task] = grant.attempt
        heappush(self._mine, task)
        if self._plan.loaded(task):
            self._need(self._plan.inputs(task))
        else:
            self._unloaded.append(task)
        return True

    def _load(self) -> Steps:
        """Load the segments of tasks just taken, so that their inputs are known before any value is let go."""
        if self._unloaded:
            tasks, self._unloaded = self._unloaded, []
            yield fx.Load(tasks)
            for task in tasks:
                self._need(self._plan.inputs(task))

    def _gather(self, task: int) -> Steps:
        """Return the values of a task's inputs: at hand, with the claim, from the value store, or recomputed."""
        inputs = self._plan.inputs(task)
        local = self._local
        records = {record.task: record for record in self._records.pop(task, ())}
        lacking = [p for p in inputs if p not in local]
        if not lacking:
            return {p: local[p] for p in inputs}
        unknown = [p for p in lacking if p not in records]
        for start in range(0, len(unknown), _PER_REQUEST):
            if not (yield from self._claim([(task, tuple(unknown[start : start + _PER_REQUEST]))])):
                return None  # it went to another while this executor was away
            records.update((record.task, record) for record in self._records.pop(task, ()))
        names = []
        for p in lacking:
            record = records.get(p)
            if record is not None and record.value.kind == m.INLINE:
                local[p] = self._context.unpack(record.value.body)
                self._sizes[p] = record.value.nbytes
            elif record is not None and record.value.kind == m.STORED:
                names.append((p, record.attempt))
                self._sizes[p] = record.value.nbytes
        if names:
            for (p, _), value in zip(names, (yield fx.Fetch(names)), strict=True):
                if value is not fx.LACKING:
                    local[p] = value
        lacking = [p for p in lacking if p not in local]
        if lacking:
            local.update((yield from self._recompute(lacking)))
        return {p: local[p] for p in inputs}

    def _recompute(self, tasks: list[int]) -> Steps:
        values = yield from recompute(tasks, self._local, self._context, self.tally)
        if isinstance(values, fx.Raised):
            yield fx.Fail(tasks[0], 0, values.error)
            raise _Ended
        return values

    # --- run --------------------------------------------------------------------------------------------------------

    def _step(self, task: int) -> Steps:
        """Run one task that is mine and put its outcome in the outbox."""
        plan, costs = self._plan, self._context.costs
        attempt = self._attempts[task]
        if attempt > costs.attempts and task not in self._committed:
            yield fx.Fail(task, attempt, TaskLost(plan.key(task), attempt - 1))
            raise _Ended
        committed = self._committed.pop(task, None)
        if committed is not None and committed.kind != m.HELD:
            self._finish(task, attempt, fx.Packed(committed.kind == m.INLINE, committed.nbytes, committed.body), True)
        elif (values := (yield from self._gather(task))) is None:
            del self._attempts[task]
        else:
            answer = yield fx.Run(task, values)
            if isinstance(answer, fx.Raised):
                yield fx.Fail(task, attempt, answer.error)
                raise _Ended
            self.tally.tasks += 1
            self._context.estimates.saw(plan.kind(task), answer.seconds)
            self._fresh += answer.seconds
            self._local[task] = answer.value
            try:
                packed = self._context.pack(answer.value)
            except Exception as error:
                yield fx.Fail(task, attempt, error)
                raise _Ended from error
            self._sizes[task] = packed.nbytes
            self._finish(task, attempt, packed, committed is not None)
        self._unneed(plan.inputs(task))

    def _finish(self, task: int, attempt: int, packed: fx.Packed, committed: bool) -> None:
        """Put a finished task in the outbox; decide what is first said of its value.

        A task already `committed` only has its edges settled: its inputs were given up then.
        """
        plan, costs = self._plan, self._context.costs
        edges = self._edges(task)
        queued = len(self._mine)
        claims = 1
        if edges:
            child = edges[0].child
            kind = plan.kind(child) if child >= 0 and plan.loaded(child) else -1
            claims = costs.keep(self._context.estimates.seconds(kind), queued)
        here = self._shards == 1 or all(home(edge.child, self._shards) == home(task, self._shards) for edge in edges)
        if packed.inline:
            first = m.Value(m.INLINE, packed.nbytes, packed.body)
        elif not committed and here and edges and not plan.is_output(task) and len(edges) <= claims:
            first = m.Value(m.HELD, packed.nbytes)
        else:
            first = m.Value(m.STORED, packed.nbytes)
        self._need((task,))
        spent = [] if committed else self._spend(task)
        self._outbox.append(_Done(task, attempt, packed, edges, claims, spent, first))

    def _edges(self, task: int) -> tuple[m.Edge, ...]:
        """Out-edges of a task, the child with most bytes at hand, then on the longest path, first."""
        plan, local = self._plan, self._local
        edges = list(plan.edges(task))
        if len(edges) > 1:
            sizes = self._sizes

            def preference(edge: tuple[int, int]) -> tuple[int, int, int]:
                child = edge[0]
                if not plan.loaded(child):
                    return (0, 0, child)
                near = sum(sizes.get(p, 0) for p in plan.inputs(child) if p in local) if edge[1] <= _WANTED else 0
                return (-near, -plan.height(child), child)

            edges.sort(key=preference)
        settled = [
            m.Edge(child, indegree, tuple(p for p in plan.inputs(child) if p != task and p not in local))
            if 1 < indegree <= _WANTED and plan.loaded(child)
            else m.Edge(child, indegree)
            for child, indegree in edges
        ]
        if plan.is_output(task):
            settled.append(m.Edge(m.CLIENT, len(plan.outputs)))
        return tuple(settled)

    # --- settle -----------------------------------------------------------------------------------------------------

    def _flush(self) -> Steps:
        """Commit what is in the outbox, settle its edges, take what was granted and have the rest invoked."""
        batch, self._outbox, self._fresh = self._outbox, [], 0.0
        if not batch:
            return
        yield from self._write([done for done in batch if done.first.kind == m.STORED])
        ready: list[int] = []
        freed: list[tuple[int, int]] = []
        won: list[_Done] = []
        for shard, group in self._by_home(batch, lambda done: done.task):
            rejected = yield from self._commit(shard, [(done, done.first) for done in group], won, ready, freed)
            if rejected:
                yield from self._write(rejected)
                stored = [(done, m.Value(m.STORED, done.packed.nbytes)) for done in rejected]
                yield from self._commit(shard, stored, won, ready, freed)
        if self._shards > 1:
            yield from self._settle_elsewhere(won, ready, freed)
        yield from self._load()
        for done in batch:
            self._attempts.pop(done.task, None)
            self._unneed((done.task,))
        if freed:
            yield fx.Drop(freed)
        yield from self._invoke(ready)

    def _write(self, batch: list[_Done]) -> Steps:
        """Write values before any edge says that they are there."""
        frames = [(done.task, done.attempt, done.packed.body) for done in batch if done.packed.body is not None]
        if frames:
            self.tally.writes += len(frames)
            self._written.update((task, attempt) for task, attempt, _ in frames)
            yield fx.Put(frames)

    def _commit(
        self, shard: int, batch: list[tuple[_Done, m.Value]], won: list[_Done], ready: list[int], freed: list[Any]
    ) -> Steps:
        """Commit outcomes in their home shard; return those whose held value has to be written first."""
        outcomes = []
        for done, value in batch:
            here = [edge for edge in done.edges if home(edge.child, self._shards) == shard]
            inputs = () if value.kind == m.HELD else tuple(p for p in done.spent if home(p[0], self._shards) == shard)
            outcomes.append(
                m.Outcome(
                    done.task,
                    done.attempt,
                    value,
                    tuple(here),
                    done.claims,
                    value.kind == m.HELD and self._may_wait(done),
                    inputs,
                    len(here) == len(done.edges),
                )
            )
        rejected = []
        settlements = yield from self._ask(shard, m.Commit(self._nonce, *self._next(), tuple(outcomes)))
        for (done, value), settlement in zip(batch, settlements, strict=True):
            if settlement.verdict == m.WRITE:
                rejected.append(done)
                continue
            self._written.discard((done.task, done.attempt))
            if settlement.verdict == m.LOST:
                self.tally.lost += 1
                if value.kind == m.STORED:
                    freed.append((done.task, done.attempt))
            else:
                won.append(done)
                if value.kind == m.HELD:
                    self._hold(done, settlement)
                self._accept(settlement, ready, freed)
        return rejected

    def _settle_elsewhere(self, batch: list[_Done], ready: list[int], freed: list[Any]) -> Steps:
        """Settle edges into other shards, then say that all are, then give up inputs whose home is elsewhere."""
        shards = self._shards
        crossing: dict[int, list[tuple[_Done, list[m.Edge]]]] = {}
        for done in batch:
            away: dict[int, list[m.Edge]] = {}
            for edge in done.edges:
                if home(edge.child, shards) != home(done.task, shards):
                    away.setdefault(home(edge.child, shards), []).append(edge)
            for shard, edges in away.items():
                crossing.setdefault(shard, []).append((done, edges))
        for shard, pairs in sorted(crossing.items()):
            outcomes = tuple(
                m.Outcome(done.task, done.attempt, done.first, tuple(edges), done.claims) for done, edges in pairs
            )
            for settlement in (yield from self._ask(shard, m.Arrive(self._nonce, *self._next(), outcomes))):
                self._accept(settlement, ready, freed)
        unsettled = {done.task: done for pairs in crossing.values() for done, _ in pairs}
        for shard, group in self._by_home(list(unsettled.values()), lambda done: done.task):
            outcomes = tuple(m.Outcome(done.task, done.attempt, done.first) for done in group)
            yield from self._ask(shard, m.Commit(self._nonce, *self._next(), outcomes))
        spent = [p for done in batch for p in done.spent if home(p[0], shards) != home(done.task, shards)]
        yield from self._release(spent, freed)

    def _release(self, spent: list[tuple[int, int]], freed: list[Any]) -> Steps:
        """Give up uses of inputs, each at its home."""
        for shard, group in self._by_home(spent, lambda use: use[0]):
            release = m.Release(self._nonce, *self._next(), uses=tuple(group))
            freed.extend((yield from self._ask(shard, release)))

    def _accept(self, settlement: m.Settlement, ready: list[int], freed: list[Any]) -> None:
        for grant in settlement.granted:
            self.tally.becomes += self._take(grant)
        ready.extend(settlement.ready)
        freed.extend(settlement.freed)

    def _invoke(self, ready: list[int]) -> Steps:
        """Have other executors started on ready tasks, as many tasks each as last as long as starting one."""
        if m.CLIENT in ready:
            yield fx.Finish()
            ready = [task for task in ready if task != m.CLIENT]
        if ready:
            plan = self._plan
            kind = plan.kind(ready[0]) if plan.loaded(ready[0]) else -1
            self.tally.invocations += len(ready)
            yield fx.Invoke(ready, self._context.costs.group(self._context.estimates.seconds(kind)))

    # --- hold -------------------------------------------------------------------------------------------------------

    def _may_wait(self, done: _Done) -> bool:
        costs = self._context.costs
        return costs.hold(done.packed.nbytes) > 2 * costs.round_trip and not self._context.busy()

    def _hold(self, done: _Done, settlement: m.Settlement) -> None:
        """A value was accepted unwritten: note what it owes, and the child it still waits for, if any."""
        self.tally.held += 1
        self._debts[done.task] = _Debt({edge.child for edge in done.edges}, done.spent)
        if settlement.verdict == m.HOLDING:
            granted = {grant.task for grant in settlement.granted}
            waiting = [edge for edge in done.edges if edge.child not in granted and edge.child not in self._attempts]
            self._need((done.task,))
            self._holding[done.task] = (done, waiting, self._context.costs.hold(done.packed.nbytes))

    def _wait(self) -> Steps:
        """Wait for the children of held values; write those for which waiting has become the dearer way."""
        patience = 2 * self._context.costs.round_trip
        busy = yield fx.Pause(patience)
        ready: list[int] = []
        freed: list[tuple[int, int]] = []
        for task, (done, waiting, budget) in list(self._holding.items()):
            shard = home(task, self._shards)
            probe = m.Probe(tuple(edge.child for edge in waiting))
            mine, still = [], []
            for edge, state in zip(waiting, (yield from self._ask(shard, probe)), strict=True):
                if state.state == states.CLAIMED and state.owner == self._nonce:
                    mine.append((edge.child, edge.wanted))
                elif state.state not in (states.SETTLED, states.UNSETTLED):
                    still.append(edge)
            if mine:
                self.tally.becomes += yield from self._claim(mine)
            if still and (busy or budget <= 0):
                yield from self._write([done])
                value = m.Value(m.STORED, done.packed.nbytes)
                outcome = m.Outcome(task, done.attempt, value, tuple(still), done.claims)
                commit = m.Commit(self._nonce, *self._next(), (outcome,))
                for settlement in (yield from self._ask(shard, commit)):
                    self._written.discard((task, done.attempt))
                    self._accept(settlement, ready, freed)
                yield from self._release(self._debts.pop(task).inputs, freed)
                yield from self._load()
                still = []
            if still:
                self._holding[task] = (done, still, budget - patience)
            else:
                del self._holding[task]
                self._unneed((task,))
        if freed:
            yield fx.Drop(freed)
        yield from self._invoke(ready)

    def _spend(self, task: int) -> list[tuple[int, int]]:
        """Return the inputs that `task` is done with, and those that values it consumed still owed."""
        spent = []
        for p, consumers in self._plan.uses(task):
            debt = self._debts.get(p)
            if debt is None:
                spent.append((p, consumers))
                continue
            debt.consumers.discard(task)
            if not debt.consumers:
                spent.extend(debt.inputs)
                del self._debts[p]
        return spent

    # --- small things -----------------------------------------------------------------------------------------------

    def _ask(self, shard: int, request: m.Request) -> Steps:
        """Send a request; the answer's body, unless the job is over for this executor."""
        reply = yield fx.Ask(shard, request)
        if reply.status != m.RUNNING:
            raise _Ended
        return reply.body

    def _next(self) -> tuple[int, float]:
        """Sequence number and lease of the next request."""
        self._seq += 1
        return self._seq, self._context.costs.lease

    def _by_home(self, things: Sequence[Any], task: Callable[[Any], int]) -> Iterable[tuple[int, Sequence[Any]]]:
        if not things:
            return ()
        if self._shards == 1:
            return ((0, things),)
        groups: dict[int, list[Any]] = {}
        for thing in things:
            groups.setdefault(home(task(thing), self._shards), []).append(thing)
        return groups.items()

    def _need(self, tasks: Iterable[int]) -> None:
        needs = self._needs
        for task in tasks:
            needs[task] = needs.get(task, 0) + 1

    def _unneed(self, tasks: Iterable[int]) -> None:
        """Let go of values that are no longer needed here."""
        needs = self._needs
        for task in tasks:
            left = needs[task] - 1
            if left:
                needs[task] = left
            else:
                del needs[task]
                self._local.pop(task, None)
                self._sizes.pop(task, None)
