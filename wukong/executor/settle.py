"""Settling: how finished tasks become records, and what is done with values the store would rather not have yet.

Three rules save traffic (after Wukong, SoCC '20, section 4):

- *claim before write*: a large value is first offered as `HELD`. If every child is then this executor's to run, it is
  never written; otherwise the store answers `WRITE`, and the value is written before the edge.
- *delayed I/O*: where only one child is incomplete, the value may stay here: until this executor has run what the child
  lacks, or while waiting costs less than writing and the platform has no other work.
- *small values ride with their edges* and come back with the claim: a fan-in of small values is one round trip.

A value that is only here has *debts*: its inputs may not be freed before its consumers are stored, for whoever has to
recompute it needs them. If this executor dies the debts are never paid, and the job's release frees them.
"""

from collections.abc import Container, Sequence

from wukong.executor import effects as fx
from wukong.executor.context import Context, Tally
from wukong.executor.finished import Computed, Debt, Finished, Held, Settled
from wukong.executor.session import Session, Steps
from wukong.executor.shelf import Shelf
from wukong.protocol import messages as m
from wukong.protocol import states


class Settler:
    """Settles the outcomes of one executor.

    Parameters
    ----------
    context : Context
        The job and the place.
    session : Session
        The way to the control store.
    shelf : Shelf
        Values at hand; a held one is kept there.
    mine : container of int
        Tasks that are this executor's already.
    tally : Tally
        Counts what was written, held and lost.
    """

    __slots__ = ("_context", "_debts", "_held", "_mine", "_session", "_shelf", "_tally", "unnamed")

    def __init__(self, context: Context, session: Session, shelf: Shelf, mine: Container[int], tally: Tally) -> None:
        self._context = context
        self._session = session
        self._shelf = shelf
        self._mine = mine
        self._tally = tally
        self._debts: dict[int, Debt] = {}
        self._held: dict[int, Held] = {}
        #: Values written that no record names yet: to be deleted if the job ends first.
        self.unnamed: set[tuple[int, int]] = set()

    @property
    def holding(self) -> bool:
        """Whether values wait here for their children."""
        return bool(self._held)

    def spend(self, task: int) -> list[tuple[int, int]]:
        """Return the inputs that `task` is done with, and those that values it consumed still owed."""
        spent = []
        for p, consumers in self._context.plan.uses(task):
            debt = self._debts.get(p)
            if debt is None:
                spent.append((p, consumers))
                continue
            debt.consumers.discard(task)
            if not debt.consumers:
                spent.extend(debt.inputs)
                del self._debts[p]
        return spent

    def settle(self, batch: list[Finished]) -> Steps:
        """Commit finished tasks and settle their edges; return a `Settled`."""
        session, settled = self._session, Settled()
        yield from self._write([done for done in batch if done.first.kind == m.STORED])
        won: list[Finished] = []
        for shard, group in session.by_home(batch, lambda done: done.task):
            rejected = yield from self._commit(shard, [(done, done.first) for done in group], won, settled)
            if rejected:
                yield from self._write(rejected)
                stored = [(done, m.Value(m.STORED, done.packed.nbytes)) for done in rejected]
                yield from self._commit(shard, stored, won, settled)
        if session.shards > 1:
            yield from self._settle_elsewhere(won, settled)
        return settled

    def wait(self) -> Steps:
        """Wait a little for the children of held values, and write those for which waiting has become the dearer way.

        Returns a `Settled`; its `won` are children that are this executor's now and have to be claimed. `let_go` has to
        follow when they are.
        """
        session, settled = self._session, Settled()
        patience = 2 * self._context.costs.round_trip
        busy = yield fx.Pause(patience)
        known: dict[int, m.State] = {}
        awaited = {edge.child for held in self._held.values() for edge in held.waiting}
        for shard, children in session.by_home(sorted(awaited), lambda child: child):
            known.update(zip(children, (yield from session.ask(shard, m.Probe(tuple(children)))), strict=True))
        given_up: set[int] = set()
        for held in self._held.values():
            still = []
            for edge in held.waiting:
                state = known[edge.child]
                if state.state == states.CLAIMED and state.owner == session.nonce:
                    settled.won.append((edge.child, edge.wanted or ()))
                elif state.state not in (states.SETTLED, states.UNSETTLED):
                    still.append(edge)
            held.waiting, held.budget = still, held.budget - patience
            if busy or held.budget <= 0:
                given_up.update(edge.child for edge in still)
        # All that is held for one child at once: the first that is written ends the hold, and the child goes to others.
        over = [held for held in self._held.values() if any(edge.child in given_up for edge in held.waiting)]
        yield from self._give_up(over, settled)
        return settled

    def let_go(self) -> None:
        """Hold values no longer whose children have all been given away, or are this executor's and need them."""
        for task, held in list(self._held.items()):
            held.waiting = [edge for edge in held.waiting if edge.child not in self._mine]
            if not held.waiting:
                del self._held[task]
                self._shelf.unneed((task,))

    def _give_up(self, over: list[Held], settled: Settled) -> Steps:
        """Write values that were held, settle their last edges once more, and pay what they owe."""
        yield from self._write([held.finished for held in over])
        yield from self._tell([held.written() for held in over], settled)
        for held in over:
            held.waiting = []
        owed = [(held.finished.attempt, self._debts.pop(held.finished.task).inputs) for held in over]
        settled.freed += yield from self._session.release(owed)

    def restore(self, values: Sequence[Computed]) -> Steps:
        """Write values that were lost under the names they had, and say so where their tasks are known to be done."""
        yield from self._write([value for value in values if not value.packed.inline])
        settled = Settled()
        yield from self._tell([value.restored() for value in values], settled)
        if settled.freed:
            yield fx.Drop(settled.freed)

    def _tell(self, outcomes: list[m.Outcome], settled: Settled) -> Steps:
        """Tell of values alone, of tasks that are done; what came too late is to be deleted."""
        session = self._session
        for shard, group in session.by_home(outcomes, lambda outcome: outcome.task):
            settlements = yield from session.commit(shard, group)
            for outcome, settlement in zip(group, settlements, strict=True):
                name = (outcome.task, outcome.attempt)
                self.unnamed.discard(name)
                settled.add(settlement)
                if settlement.verdict == m.LOST and outcome.value.kind == m.STORED:
                    settled.freed.append(name)

    def _write(self, batch: Sequence[Computed | Finished]) -> Steps:
        """Write values before any edge says that they are there."""
        frames = [(done.task, done.attempt, done.packed.body) for done in batch if done.packed.body is not None]
        if frames:
            self._tally.writes += len(frames)
            self.unnamed.update((task, attempt) for task, attempt, _ in frames)
            yield fx.Put(frames)

    def _commit(
        self, shard: int, batch: list[tuple[Finished, m.Value]], won: list[Finished], settled: Settled
    ) -> Steps:
        """Commit outcomes in their home shard; return those whose held value has to be written first."""
        outcomes = [self._outcome(shard, done, value) for done, value in batch]
        rejected = []
        settlements = yield from self._session.commit(shard, outcomes)
        for (done, value), settlement in zip(batch, settlements, strict=True):
            if settlement.verdict == m.WRITE:
                rejected.append(done)
                continue
            self.unnamed.discard((done.task, done.attempt))
            if settlement.verdict == m.LOST:
                self._tally.lost += 1
                if value.kind == m.STORED:
                    settled.freed.append((done.task, done.attempt))
                continue
            if value.kind == m.HELD:
                # All its edges are at home, and it gives up no input yet.
                self._hold(done, settlement)
            else:
                won.append(done)
            settled.add(settlement)
        return rejected

    def _outcome(self, shard: int, done: Finished, value: m.Value) -> m.Outcome:
        held = value.kind == m.HELD
        if self._session.shards == 1:
            edges, inputs = done.edges, done.spent
        else:
            edges = tuple(edge for edge in done.edges if self._session.home(edge.child) == shard)
            inputs = [use for use in done.spent if self._session.home(use[0]) == shard]
        return m.Outcome(
            done.task,
            done.attempt,
            value,
            edges,
            done.claims,
            held and self._may_wait(done),
            () if held else tuple(inputs),
            len(edges) == len(done.edges),
        )

    def _settle_elsewhere(self, won: list[Finished], settled: Settled) -> Steps:
        """Settle edges into other shards, then say that all are, then give up inputs whose home is elsewhere."""
        session = self._session
        crossing: dict[int, list[m.Outcome]] = {}
        unsettled = []
        for done in won:
            away: dict[int, list[m.Edge]] = {}
            for edge in done.edges:
                if session.home(edge.child) != session.home(done.task):
                    away.setdefault(session.home(edge.child), []).append(edge)
            for shard, edges in away.items():
                outcome = m.Outcome(done.task, done.attempt, done.first, tuple(edges), done.claims)
                crossing.setdefault(shard, []).append(outcome)
            if away:
                unsettled.append(m.Outcome(done.task, done.attempt, done.first))
        for shard, outcomes in sorted(crossing.items()):
            for settlement in (yield from session.arrive(shard, outcomes)):
                settled.add(settlement)
        for shard, group in session.by_home(unsettled, lambda outcome: outcome.task):
            yield from session.commit(shard, group)
        away_uses = [
            (done.attempt, [use for use in done.spent if session.home(use[0]) != session.home(done.task)])
            for done in won
        ]
        settled.freed += yield from session.release(away_uses)

    def _may_wait(self, done: Finished) -> bool:
        """Whether a value may wait for a child that is not complete: this executor completes it, or nobody needs it."""
        costs = self._context.costs
        if costs.hold(done.packed.nbytes) <= 2 * costs.round_trip:
            return False
        return self._completes(done.edges) or not self._context.busy()

    def _completes(self, edges: tuple[m.Edge, ...]) -> bool:
        """Whether what the children lack, beside what is at hand, is this executor's to run."""
        return all(
            edge.indegree == 1 or (edge.wanted and all(task in self._mine for task in edge.wanted)) for edge in edges
        )

    def _hold(self, done: Finished, settlement: m.Settlement) -> None:
        """A value was accepted unwritten: note what it owes, and the child it still waits for, if any."""
        self._tally.held += 1
        self._debts[done.task] = Debt({edge.child for edge in done.edges}, done.spent)
        if settlement.verdict == m.HOLDING:
            granted = {grant.task for grant in settlement.granted}
            waiting = [edge for edge in done.edges if edge.child not in granted and edge.child not in self._mine]
            self._shelf.need((done.task,))
            self._held[done.task] = Held(done, waiting, self._context.costs.hold(done.packed.nbytes))
