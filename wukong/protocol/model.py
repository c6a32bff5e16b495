"""The reference model of the control store: one shard of one job, in plain Python, without I/O or a clock.

It is the specification that the Lua of `wukong.storage.control` is tested against, the store that the simulator runs
on, and, behind a lock, the control store of jobs that stay in one process.

A rule lands here with a seed of the simulator that needs it: tests/simulation/test_rules.py takes them out one by one.
docs/protocol.md has the table of every state and operation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from wukong.protocol import messages as m
from wukong.protocol import states

_NOBODY: frozenset[int] = frozenset()


class _Active(NamedTuple):
    """A task that is ready, claimed or unsettled."""

    state: int
    attempt: int
    owner: str
    since: float


class _Executor:
    """What the shard remembers of an executor: how far it is, its lease, and its last answer."""

    __slots__ = ("deadline", "reply", "seq")

    def __init__(self) -> None:
        self.seq = 0
        self.deadline = 0.0
        self.reply = m.Reply(m.RUNNING, b"", ())


class Shard:
    """The records of one shard.

    A shard exists from the first `Arrive` from the client until `Release(everything=True)`; outside that span every
    request is answered `GONE`.

    Examples
    --------
    >>> shard = Shard()
    >>> root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), (m.Edge(0, 1),))
    >>> shard.apply(m.Arrive("client", 1, 10.0, (root,)), now=0.0).body[0].ready
    (0,)
    >>> shard.apply(m.Claim("e1", 1, 10.0, ((0, ()),)), now=0.0).body
    (Grant(task=0, attempt=1, inputs=(), committed=None),)
    """

    #: Whether an answer is kept until the executor's next request. Where none can be lost it would only keep values
    #: alive.
    keeps_answers = True

    def __init__(self) -> None:
        self.open = False
        self.base = 0
        self.opener = ""
        self.status: int = m.RUNNING
        self.reason = b""
        self.active: dict[int, _Active] = {}
        self.done: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.arrived: dict[int, set[int]] = {}
        self.values: dict[int, tuple[int, m.Value]] = {}
        self.uses: dict[int, int] = {}
        self.holders: dict[int, str] = {}
        self.executors: dict[str, _Executor] = {}
        self.notified = False
        self._apply: dict[type, Callable[[Any, float], m.Reply]] = {
            m.Probe: self._probe,
            m.Arrive: self._arrive,
            m.Claim: self._claim,
            m.Commit: self._commit,
            m.Renew: self._renew,
            m.Sweep: self._sweep,
            m.Cancel: self._cancel,
            m.Release: self._release,
        }

    def apply(self, request: m.Request, now: float) -> m.Reply:
        """Carry out one request at time `now` (seconds) and return the answer."""
        opens = isinstance(request, m.Arrive) and request.outcomes and request.outcomes[0].task == m.CLIENT
        base = request.outcomes[0].attempt * m.EPOCH if opens else self.base  # type: ignore[union-attr]
        if not self.open and not opens:
            return m.Reply(m.GONE, b"", ())
        if not self.open or base > self.base:
            self.__init__()  # type: ignore[misc]
            self.open, self.base, self.opener = True, base, request.nonce  # type: ignore[union-attr]
        if isinstance(request, m.Probe | m.Sweep | m.Cancel | m.Renew):
            return self._apply[type(request)](request, now)
        executor = self.executors.get(request.nonce)
        if executor is None:
            executor = self.executors[request.nonce] = _Executor()
        if request.seq == executor.seq:
            executor.deadline = now + request.lease
            return executor.reply
        if request.seq < executor.seq:
            return m.Reply(m.STALE, b"", ())
        executor.deadline = now + request.lease
        if self.status != m.RUNNING and not (isinstance(request, m.Release) and request.everything):
            reply = m.Reply(self.status, self.reason, ())
        else:
            reply = self._apply[type(request)](request, now)
        executor.seq = request.seq
        if self.keeps_answers:
            executor.reply = reply
        return reply

    # --- requests ---------------------------------------------------------------------------------------------------

    def _probe(self, request: m.Probe, now: float) -> m.Reply:
        return self._answer(tuple(self._state(task) for task in request.tasks))

    def _arrive(self, request: m.Arrive, now: float) -> m.Reply:
        if any(outcome.attempt > self.base + m.EPOCH for outcome in request.outcomes):
            return m.Reply(m.GONE, b"", ())  # not opened yet under that epoch, and will forget these edges when it is
        return self._answer(tuple(self._settle(o, request.nonce, now) for o in request.outcomes))

    def _commit(self, request: m.Commit, now: float) -> m.Reply:
        return self._answer(tuple(self._commit_one(o, request.nonce, now) for o in request.outcomes))

    def _claim(self, request: m.Claim, now: float) -> m.Reply:
        grants = []
        for task, wanted in request.tasks:
            active = self.active.get(task)
            if active is None:
                continue
            if active.state == states.READY and task in self.done and task not in self.values:
                del self.active[task]  # its value is used up, so every child has committed: nothing is left to settle
            elif active.state == states.READY:
                grants.append(self._grant(task, wanted, request.nonce, now))
            elif active.owner == request.nonce:
                committed = self.values[task][1] if active.state == states.UNSETTLED and task in self.values else None
                grants.append(m.Grant(task, active.attempt, self._inputs(wanted), committed))
        return self._answer(tuple(grants))

    def _renew(self, request: m.Renew, now: float) -> m.Reply:
        executor = self.executors.get(request.nonce)
        if executor is not None:
            executor.deadline = now + request.lease
        return self._answer(())

    def _sweep(self, request: m.Sweep, now: float) -> m.Reply:
        if self.status != m.RUNNING:
            return self._answer(())
        for nonce in request.dead:
            if nonce in self.executors:
                self.executors[nonce].deadline = -1.0
        lapsed, unclaimed = [], []
        for task in sorted(self.active):
            active = self.active[task]
            if task == m.CLIENT:
                continue
            if active.state == states.READY:
                if active.since + request.patience <= now:
                    self.active[task] = active._replace(since=now)
                    unclaimed.append(task)
            elif not self._alive(active.owner, now) or (active.state == states.CLAIMED and task in request.late):
                self.active[task] = _Active(states.READY, active.attempt, "", now)
                lapsed.append(task)
        return self._answer((tuple(lapsed), tuple(unclaimed)))

    def _cancel(self, request: m.Cancel, now: float) -> m.Reply:
        if self.status == m.RUNNING:
            self.status, self.reason, self.notified = request.status, request.reason, True
        return self._answer(())

    def _release(self, request: m.Release, now: float) -> m.Reply:
        if request.everything:
            self.__init__()  # type: ignore[misc]
            return m.Reply(m.GONE, b"", ())
        for task in request.tasks:
            active = self.active.get(task)
            if active is not None and active.owner == request.nonce:
                self.active[task] = _Active(states.READY, active.attempt, "", now)
        return self._answer(self._use(request.uses) if request.epoch * m.EPOCH == self.base else ())

    # --- rules --------------------------------------------------------------------------------------------------------

    def _commit_one(self, outcome: m.Outcome, nonce: str, now: float) -> m.Settlement:
        """First commit wins, whoever owns the task now; then its edges are settled as on arrival.

        An attempt of an older epoch is known to be done only if who opened this one says so: from anybody else it may
        be the end of a commit whose beginning, and edges, were forgotten. Nor is a task done because somebody has
        written its value after all; if that was used up meanwhile, it is to be deleted again.
        """
        task = outcome.task
        winner = self.done.get(task)
        if winner is not None and winner != outcome.attempt:
            return m.Settlement(m.LOST)
        if winner is None and outcome.attempt <= self.base and nonce != self.opener:
            return m.Settlement(m.LOST)
        if winner is None and outcome.settled is None:
            return m.Settlement(m.LOST)
        settlement = self._settle(outcome, nonce, now)
        if settlement.verdict == m.WRITE:
            return settlement
        freed: tuple[tuple[int, int], ...] = ()
        if winner is None:
            self.done[task] = outcome.attempt
            self.arrived.pop(task, None)
            self.holders.pop(task, None)
            self.attempts.pop(task, None)
            freed = self._use(outcome.inputs)
        if outcome.settled is None:
            if outcome.value.kind == m.STORED and task not in self.values:
                freed = ((task, outcome.attempt),)
        elif outcome.settled:
            self.active.pop(task, None)
        else:
            self.active[task] = _Active(states.UNSETTLED, outcome.attempt, nonce, now)
        return settlement._replace(freed=freed)

    def _settle(self, outcome: m.Outcome, nonce: str, now: float) -> m.Settlement:
        """Record the value and the edges of `outcome`; claim, or leave ready, the children they complete."""
        verdict, waiter = m.OK, None
        if outcome.value.kind == m.HELD:
            verdict, waiter = self._may_hold(outcome, nonce, now)
            if verdict == m.WRITE:
                return m.Settlement(m.WRITE)
        self._record(outcome, nonce)
        granted: list[m.Grant] = []
        ready: list[int] = []
        claims = outcome.claims
        for child, indegree, wanted in outcome.edges:
            if child in self.done:
                continue
            active = self.active.get(child)
            if active is None:
                if not self._edge_completes(child, indegree, outcome.task):
                    if child == waiter:
                        self.holders[child] = nonce
                    elif outcome.settled is None and self._holder(child, now) == nonce:
                        del self.holders[child]
                    continue
                active = self._ready(child, now)
            if active.state == states.CLAIMED and active.owner == nonce:
                granted.append(m.Grant(child, active.attempt, self._inputs(wanted or ())))
            elif active.state == states.READY and claims > 0 and wanted is not None and child != m.CLIENT:
                claims -= 1
                granted.append(self._grant(child, wanted, nonce, now))
            elif active.state == states.READY:
                ready.append(child)
        return m.Settlement(verdict, tuple(granted), tuple(ready))

    def _edge_completes(self, child: int, indegree: int, parent: int) -> bool:
        """Note that `parent` has arrived (twice is once) and say whether all inputs of `child` have."""
        arrived = self.arrived.get(child)
        if arrived is None:
            arrived = self.arrived[child] = set()
        arrived.add(parent)
        return len(arrived) >= indegree

    def _may_hold(self, outcome: m.Outcome, nonce: str, now: float) -> tuple[int, int | None]:
        """Whether a held value is acceptable: every child must be the sender's to run, but for one it may wait for."""
        claims, waiter = outcome.claims, None
        for child, indegree, wanted in outcome.edges:
            active = self.active.get(child)
            if child in self.done or (active is not None and active.owner == nonce):
                continue
            if child == m.CLIENT or wanted is None or (active is not None and active.state != states.READY):
                return m.WRITE, None
            holder = self._holder(child, now)
            if holder not in (None, nonce):
                return m.WRITE, None
            arrived = self.arrived.get(child, _NOBODY)
            if active is None and len(arrived) + (outcome.task not in arrived) < indegree:
                if not outcome.hold or waiter is not None:
                    return m.WRITE, None
                waiter = child
            elif holder is None:
                if claims == 0:
                    return m.WRITE, None
                claims -= 1
        return (m.OK if waiter is None else m.HOLDING), waiter

    def _holder(self, child: int, now: float) -> str | None:
        """Who holds a value for `child` and is still alive."""
        holder = self.holders.get(child)
        return holder if holder is not None and self._alive(holder, now) else None

    def _record(self, outcome: m.Outcome, nonce: str) -> None:
        """Note where the value is.

        A written value replaces a held one, never the other way round; one that is used up does not come back, unless
        others that are lost are made of it.
        """
        task, value = outcome.task, outcome.value
        known = self.values.get(task)
        used_up = known is None and task in self.done and not (outcome.settled is None and outcome.hold)
        if task == m.CLIENT or used_up or (known is not None and known[1].kind != m.HELD):
            return
        if value.kind == m.HELD:
            value = value._replace(body=nonce)
        self.values[task] = (outcome.attempt, value)

    def _ready(self, child: int, now: float) -> _Active:
        """Make `child` ready; whoever holds a value for it owns it at once, if it is still alive."""
        holder = self._holder(child, now)
        self.holders.pop(child, None)
        if child == m.CLIENT:
            self.notified = True
        if holder is not None:
            attempt = self.attempts[child] = self.attempts.get(child, self.base) + 1
            active = _Active(states.CLAIMED, attempt, holder, now)
        else:
            active = _Active(states.READY, self.attempts.get(child, self.base), "", now)
        self.active[child] = active
        return active

    def _grant(self, task: int, wanted: tuple[int, ...], nonce: str, now: float) -> m.Grant:
        winner = self.done.get(task)
        if winner is not None:
            self.active[task] = _Active(states.UNSETTLED, winner, nonce, now)
            return m.Grant(task, winner, self._inputs(wanted), self.values[task][1])
        attempt = self.attempts[task] = self.attempts.get(task, self.base) + 1
        self.active[task] = _Active(states.CLAIMED, attempt, nonce, now)
        return m.Grant(task, attempt, self._inputs(wanted))

    def _inputs(self, wanted: tuple[int, ...]) -> tuple[m.Input, ...]:
        return tuple(m.Input(task, *self.values[task]) for task in wanted if task in self.values)

    def _use(self, uses: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """Count one use of each input; a value used by all its consumers is forgotten."""
        freed = []
        for task, consumers in uses:
            used = self.uses[task] = self.uses.get(task, 0) + 1
            if used >= consumers:
                attempt, value = self.values.pop(task, (0, None))
                if value is not None and value.kind == m.STORED:
                    freed.append((task, attempt))
        return tuple(freed)

    def _alive(self, nonce: str, now: float) -> bool:
        executor = self.executors.get(nonce)
        return executor is not None and executor.deadline >= now

    def _state(self, task: int) -> m.State:
        value = self.values.get(task, (0, None))[1]
        active = self.active.get(task)
        if active is not None:
            return m.State(active.state, active.attempt, active.owner, value)
        if task in self.done:
            return m.State(states.SETTLED, self.done[task], "", value)
        return m.State(states.WAITING, self.attempts.get(task, self.base), "", value)

    def _answer(self, body: tuple[Any, ...]) -> m.Reply:
        return m.Reply(self.status, self.reason, body)
