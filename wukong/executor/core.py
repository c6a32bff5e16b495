"""The executor: gather, run, settle, choose.

One `Executor` is one invocation walking a static schedule from the tasks it was started with. It runs a task, commits
it and settles its out-edges in one request, *becomes* the child it completed, keeps what is cheaper to run here than
to ship (clustering) and has the rest invoked. What it decides is here and in `wukong.executor.settle`; what it does is
left to whoever drives the generator (see `wukong.executor.effects`). It performs no I/O and reads no clock.
"""

from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any

from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.edges import out_edges
from wukong.executor.finished import Finished, Settled
from wukong.executor.lineage import Lineage
from wukong.executor.lost import lost
from wukong.executor.session import Ended, Session, Steps
from wukong.executor.settle import Settler
from wukong.executor.shelf import Shelf
from wukong.protocol import messages as m

#: At most so many inputs are asked for in one request.
_PER_REQUEST = 4096
#: Most outcomes in one request: a script holds up everybody else's.
_OUTBOX = 256


class Executor:
    """One executor, named by its nonce.

    Parameters
    ----------
    nonce : str
        Name minted at this entry; a retried invocation has another.
    context : Context
        The job and the place.
    granted : sequence of Grant, optional
        What whoever started it has claimed in its name, with its first request; it has to claim nothing itself then.
    """

    __slots__ = (
        "_attempts",
        "_committed",
        "_context",
        "_fresh",
        "_granted",
        "_mine",
        "_outbox",
        "_plan",
        "_records",
        "_session",
        "_settler",
        "_shelf",
        "_unloaded",
        "tally",
    )

    def __init__(self, nonce: str, context: Context, granted: Sequence[m.Grant] | None = None) -> None:
        self.tally = Tally()
        self._granted = granted
        self._context = context
        self._plan = context.plan
        self._mine: list[int] = []  # tasks to run, a heap: lowest number first is depth first
        self._attempts: dict[int, int] = {}  # of tasks that are this executor's, until they are settled
        self._committed: dict[int, m.Value] = {}  # of these, the ones that only need their edges settled
        self._records: dict[int, tuple[m.Input, ...]] = {}  # inputs that came with a claim
        self._unloaded: list[int] = []  # taken, but their segments are not here yet
        self._outbox: list[Finished] = []
        self._fresh = 0.0  # seconds of work in the outbox
        self._shelf = Shelf()
        self._session = Session(nonce, context.costs.lease, context.shards, 0 if granted is None else 1)
        self._settler = Settler(context, self._session, self._shelf, self._attempts, self.tally)

    def walk(self, starts: Sequence[int]) -> Generator[fx.Effect, Any, Tally]:
        """Walk the static schedule from `starts` until nothing is left that is this executor's to do."""
        try:
            if self._granted is None:
                yield from self._claim([(task, ()) for task in starts])
            else:
                for grant in self._granted:
                    self._take(grant)
                self._granted = None
                yield from self._load()
            while True:
                if self._outbox and (not self._mine or self._overdue(self._mine[0])):
                    yield from self._flush()
                elif self._mine:
                    yield from self._step(heappop(self._mine))
                elif self._settler.holding:
                    settled = yield from self._settler.wait()
                    yield from self._move_on(settled)
                else:
                    break
        except Ended:
            if self._settler.unnamed:
                yield fx.Drop(sorted(self._settler.unnamed))
        return self.tally

    # --- gather -------------------------------------------------------------------------------------------------------

    def _claim(self, tasks: Sequence[tuple[int, tuple[int, ...]]]) -> Steps:
        """Claim tasks and take what is granted; return how many were granted, and how many of them are new."""
        taken = granted = 0
        for shard, group in self._session.by_home(tasks, lambda pair: pair[0]):
            for start in range(0, len(group), _PER_REQUEST):
                grants = yield from self._session.claim(shard, group[start : start + _PER_REQUEST])
                granted += len(grants)
                taken += sum(map(self._take, grants))
        yield from self._load()
        return granted, taken

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
            self._shelf.need(self._plan.inputs(task))
        else:
            self._unloaded.append(task)
        return True

    def _load(self) -> Steps:
        """Load the segments of tasks just taken, so that their inputs are known before any value is let go."""
        if self._unloaded:
            tasks, self._unloaded = self._unloaded, []
            yield fx.Load(tasks)
            for task in tasks:
                self._shelf.need(self._plan.inputs(task))

    def _gather(self, task: int) -> Steps:
        """Return the values of a task's inputs: at hand, with the claim, from the value store, or recomputed.

        None if the task went to another executor while this one was away.
        """
        inputs = self._plan.inputs(task)
        values = self._shelf.values
        records = {record.task: record for record in self._records.pop(task, ())}
        lacking = [p for p in inputs if p not in values]
        if not lacking:
            return {p: values[p] for p in inputs}
        unknown = [p for p in lacking if p not in records]
        for start in range(0, len(unknown), _PER_REQUEST):
            granted, _ = yield from self._claim([(task, tuple(unknown[start : start + _PER_REQUEST]))])
            if not granted:
                return None
            records.update((record.task, record) for record in self._records.pop(task, ()))
        stored = []
        for p in lacking:
            record = records.get(p)
            if record is not None and record.value.kind == m.INLINE:
                self._shelf.put(p, self._context.unpack(p, record.value.body), record.value.nbytes)
            elif record is not None and record.value.kind == m.STORED:
                stored.append(record)
        if stored:
            found = yield fx.Fetch([(record.task, record.attempt) for record in stored])
            for record, value in zip(stored, found, strict=True):
                if value is not fx.LACKING:
                    self._shelf.put(record.task, value, record.value.nbytes)
        lacking = [p for p in lacking if p not in values]
        if lacking:
            yield from self._recompute(lacking)
        return {p: values[p] for p in inputs}

    def _recompute(self, tasks: list[int]) -> Steps:
        """Put values on the shelf that are nowhere else any more."""
        lineage = Lineage(self._shelf.values, self._context, self._session, self._settler, self.tally)
        found = yield from lineage.recompute(tasks)
        if isinstance(found, fx.Raised):
            yield fx.Fail(tasks[0], found.error)
            raise Ended
        self._shelf.values.update(found)

    # --- run ----------------------------------------------------------------------------------------------------------

    def _step(self, task: int) -> Steps:
        """Run one task that is mine and put its outcome in the outbox."""
        context = self._context
        attempt = self._attempts[task]
        committed = self._committed.pop(task, None)
        if committed is None and (tries := m.tries(attempt)) > 1:
            if tries > context.costs.attempts or self._plan.once(task):
                yield fx.Fail(task, lost(self._plan.key(task), tries - 1, self._plan.once(task)))
                raise Ended
            yield from self._session.stay(task, tries)
        if committed is not None and committed.kind != m.HELD:
            self._finish(task, attempt, fx.Packed(committed.kind == m.INLINE, committed.nbytes, committed.body), True)
        elif (values := (yield from self._gather(task))) is None:
            del self._attempts[task]
            self._shelf.unneed(self._plan.inputs(task))
        else:
            answer = yield fx.Run(task, values)
            if isinstance(answer, fx.Raised):
                yield fx.Fail(task, answer.error)
                raise Ended
            self.tally.tasks += 1
            context.estimates.saw(self._plan.kind(task), answer.seconds)
            self._fresh += answer.seconds
            try:
                packed = context.pack(answer.value)
            except Exception as error:
                yield fx.Fail(task, error)
                raise Ended from error
            self._shelf.put(task, answer.value, packed.nbytes)
            self._finish(task, attempt, packed, committed is not None)

    def _finish(self, task: int, attempt: int, packed: fx.Packed, committed: bool) -> None:
        """Put a finished task in the outbox; decide what is first said of its value.

        A task already `committed` only has its edges settled: its inputs were given up then.
        """
        edges = out_edges(task, self._context, self._shelf)
        claims = self._keep(edges, packed) if edges else 0
        session = self._session
        here = session.shards == 1 or all(session.home(edge.child) == session.home(task) for edge in edges)
        if packed.inline:
            first = m.Value(m.INLINE, packed.nbytes, packed.body)
        elif not committed and here and self._all_mine(task, edges, claims) and not self._plan.once(task):
            first = m.Value(m.HELD, packed.nbytes)
        else:
            first = m.Value(m.STORED, packed.nbytes)
        self._shelf.need((task,))
        spent = [] if committed else self._settler.spend(task)
        self._outbox.append(Finished(task, attempt, packed, edges, claims, spent, first))
        if self._plan.once(task):
            # Nobody may run it again, so nothing is risked between its end and its commit.
            self._fresh = inf

    def _all_mine(self, task: int, edges: tuple[m.Edge, ...], claims: int) -> bool:
        """Whether all children of a task could be this executor's to run."""
        return (
            0 < len(edges) <= claims
            and not self._plan.is_output(task)
            and all(edge.wanted is not None for edge in edges)
        )

    # --- choose -------------------------------------------------------------------------------------------------------

    def _keep(self, edges: tuple[m.Edge, ...], packed: fx.Packed) -> int:
        """How many children of a value are cheaper to run here than to ship, if all last as long as the first."""
        context, children = self._context, len(edges)
        # What rides with its record costs its readers nothing.
        nbytes = 0 if packed.inline else packed.nbytes
        busy = nbytes > 0 and children > 1 and context.busy()
        return context.costs.keep(self._expected(edges[0].child), len(self._mine), nbytes, children, busy)

    def _expected(self, task: int) -> float:
        kind = self._plan.kind(task) if task >= 0 and self._plan.loaded(task) else -1
        return self._context.estimates.seconds(kind)

    def _overdue(self, task: int) -> bool:
        """Whether finished work would wait too long for company if `task` ran before it is settled."""
        soon = self._fresh + self._expected(task)
        return soon > self._context.costs.linger or len(self._outbox) >= _OUTBOX

    def _flush(self) -> Steps:
        """Settle what is in the outbox, go on with what was granted and have the rest invoked."""
        batch, self._outbox, self._fresh = self._outbox, [], 0.0
        settled = yield from self._settler.settle(batch)
        yield from self._move_on(settled, batch)

    def _move_on(self, settled: Settled, batch: Sequence[Finished] = ()) -> Steps:
        """Take what was granted, let go of what is no longer needed, have the rest invoked."""
        if settled.won:
            _, taken = yield from self._claim(settled.won)
            self.tally.becomes += taken
        self.tally.becomes += sum(map(self._take, settled.granted))
        yield from self._load()
        self._settler.let_go()
        for done in batch:
            self._attempts.pop(done.task, None)
            # Its inputs as well: a child that was just taken may read them, too.
            self._shelf.unneed((done.task, *self._plan.inputs(done.task)))
        if settled.freed:
            yield fx.Drop(settled.freed)
        ready = settled.ready
        if m.CLIENT in ready:
            yield fx.Finish()
            ready = [task for task in ready if task != m.CLIENT]
        if ready:
            self.tally.invocations += len(ready)
            yield fx.Invoke(ready, self._context.costs.group(self._expected(ready[0])))
