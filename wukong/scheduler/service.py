"""What the client does for executors of a job in its processes: it answers them, and has work for those that are idle.

Records of a job without a store are in the client's memory, where values that threads make are the very objects. One
that a process asks for is packed then, not before: small ones ride with the answer, large ones move into the arena,
and are in shared memory for everybody from then on.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from wukong import failures
from wukong.cost import Costs
from wukong.errors import CannotTravel, WorkerLost, WukongError
from wukong.executor.context import Tally
from wukong.executor.driver import name as value_name
from wukong.executor.effects import Framed
from wukong.executor.job import Job
from wukong.plan.reading import Plan
from wukong.platforms.local.board import Posted
from wukong.platforms.local.pack import Member, Pack, Work
from wukong.platforms.local.page import Page
from wukong.platforms.local.placement import ByKind
from wukong.protocol import messages as m
from wukong.protocol.sharding import home
from wukong.scheduler.left import Left
from wukong.scheduler.recovery import USUAL, Entry, Recovery, Terms
from wukong.storage.arena import Sealed, Wire
from wukong.storage.control.memory import MemoryControlStore
from wukong.travel import check_travels


class Opening(NamedTuple):
    """What a worker needs to take part in a job.

    Attributes
    ----------
    manifest : bytes
        Of its plan, whose blobs are in the value store of the job.
    store : str or None
        URL of its records and values; None if the client has them.
    costs : Costs
        In the worker.
    observed : bool
        Whether the client is to be told of each task.
    apart : collection of int
        Tasks that are started from the board only.
    """

    manifest: bytes
    store: str | None
    costs: Costs
    observed: bool = False
    apart: Collection[int] = frozenset()


class Service:
    """One job, as the processes of a pack see it: a source of work, and the client's side of what its executors ask.

    Parameters
    ----------
    pack : Pack
        Whose workers take part.
    posted : Posted
        The job on its board.
    opening : Opening
        What they need.
    plan : Plan
        The whole of its plan.
    publish : callable, optional
        Puts the parts of the plan into the store again.
    terms : Terms, optional
        What is started again if workers die or straggle.
    """

    def __init__(
        self,
        pack: Pack,
        posted: Posted,
        opening: Opening,
        plan: Plan,
        publish: Callable[[], None] | None = None,
        terms: Terms = USUAL,
    ) -> None:
        self.opening = opening
        self._publish = publish
        self._plan = plan
        self._pack = pack
        self._posted = posted
        self._job: Job = posted.job
        self._lock = posted.changed
        # Those of whoever asked, also where another thread lets the processes in.
        self._surroundings = posted.context.copy().run(pack.surroundings)
        self._desk = _desk_of(pack)
        self.flag = self._desk.page.take()
        page = self._desk.page
        self.recovery = Recovery(
            self._job,
            plan,
            posted,
            lambda member: page.task_of(member.number),
            lambda: pack.idle,
            terms,
            opening.store is None,
        )

    def open(self) -> None:
        """Let workers take part from now on."""
        self._desk.jobs[self._job.name] = self
        self._posted.processes = self._pack
        self._posted.ended = partial(self._desk.page.lower, self.flag)
        self._posted.resumed = partial(self._desk.page.hoist, self.flag)
        if self._posted.over:
            self._posted.ended()
        self._pack.attach(self, self.recovery.look)

    def drop(self) -> None:
        """Let workers know that tasks of the job were dropped."""
        self._desk.page.announce(self.flag)

    @property
    def dropped(self) -> tuple[int, list[int]]:
        """The tasks that were dropped, and, from before, how often there was news of that."""
        return self._desk.page.news(self.flag), list(self._job.dropped)

    def close(self) -> None:
        """Let nobody take part any more; executors at work notice with their next request."""
        self._pack.detach(self)
        self._desk.jobs.pop(self._job.name, None)
        self._desk.page.give_back(self.flag)

    def at_work(self) -> list[tuple[int, str]]:
        """Return the tasks that workers run now, each with where."""
        return [
            (task, f"worker process {member.pid}")
            for member in self._pack.at_work(self)
            if (task := self._desk.page.task_of(member.number)) is not None
        ]

    def next(self, worker: Member) -> Work | None:
        """Return an invocation for an idle worker, if there is one."""
        posted = self._posted
        if posted.placement.may_stay and not self._pack.ready:
            # What is sent now waits for the worker to be born; threads are quicker.
            return None
        with self._lock:
            starts = posted.take_away()
            if not starts:
                return None
            posted.working += 1
        entry, granted = self.recovery.begin(worker, starts)
        message = (
            "enter",
            worker.known.send(self._surroundings),
            self._job.name,
            starts,
            posted.placement.note,
            list(self._desk.jobs),
            entry.nonce,
            granted,
        )
        return Work(message, (), partial(self._returned, entry), partial(self._lost, entry))

    def abandon(self, error: WukongError) -> None:
        """See `wukong.platforms.local.pack.Source`."""
        self._posted.fail(None, error)

    def _returned(
        self,
        entry: Entry,
        fds: Sequence[int],  # noqa: ARG002
        tally: Tally,
        seconds: Mapping[int, float],
        spans: bytes,
        traffic: tuple[int, ...],
    ) -> None:
        for kind, each in seconds.items():
            self._job.estimates.saw(kind, each)
        self.ran(spans, traffic)
        self.recovery.end(entry)
        self._left(entry.starts, tally)

    def _lost(self, entry: Entry, error: WorkerLost) -> None:
        if not self._posted.over:
            given_up = self.recovery.lost(entry, error)
            if given_up is not None:
                self._posted.fail(*given_up)
        self._desk.page.clear(entry.member.number)
        self._left(entry.starts, Tally(executors=0))

    def _left(self, starts: Sequence[int], tally: Tally) -> None:
        with self._lock:
            self._posted.working -= 1
            self._job.tally.add(tally)
            self._lock.notify_all()
        self._posted.left(starts)

    # --- what executors ask -------------------------------------------------------------------------------------------

    def apply(self, shard: int, request: m.Request) -> tuple[m.Reply, bool]:
        """Carry out a request at the records; return the answer, and whether invocations wait for a worker."""
        reply = self._job.control.apply(self._job.name, shard, request)
        if reply.body:
            match request:
                case m.Claim():
                    reply = reply._replace(body=self._granted(reply.body))
                case m.Commit() | m.Arrive():
                    self._go_on(reply.body)
                    reply = reply._replace(
                        body=tuple(
                            [s._replace(granted=self._granted(s.granted)) if s.granted else s for s in reply.body]
                        )
                    )
                case m.Probe(tasks):
                    states = zip(tasks, reply.body, strict=True)
                    reply = reply._replace(body=tuple([self._probed(task, state) for task, state in states]))
        return reply, self._posted.busy()

    def _go_on(self, settlements: Sequence[m.Settlement]) -> None:
        """Do at once what the executor would ask for next, so that nothing is lost if it dies in between."""
        # Work was done, so workers do not die without end.
        self._pack.deaths = 0
        ready = [task for settlement in settlements for task in settlement.ready]
        if m.CLIENT in ready:
            self._posted.finish()
            ready = [task for task in ready if task != m.CLIENT]
        if ready:
            self._posted.invoke(ready, 1)

    def invoke(self, tasks: Sequence[int], per: int) -> None:
        """Put ready tasks on the board."""
        self._posted.invoke(tasks, per)

    def fail(self, key: Hashable, error: BaseException) -> None:
        """Note that the job has failed."""
        self._posted.fail(key, error)

    def ran(self, spans: bytes, traffic: tuple[int, ...] = ()) -> None:
        """Note when tasks ran, and how the store was used for them."""
        self._job.away.receive(spans)
        if traffic:
            self._job.traffic.append(traffic)

    def retried(self) -> None:
        """Count that a task runs again."""
        with self._lock:
            self._job.tally.retried += 1

    def finish(self) -> None:
        """Note that the results are ready."""
        self._posted.finish()

    def gone(self) -> None:
        """Note that the store knows nothing of the job."""
        self._posted.gone()

    def busy(self) -> bool:
        """Whether invocations wait for a worker."""
        return self._posted.busy()

    def publish(self) -> None:
        """Put the parts of the plan into the store again."""
        if self._publish is not None:
            self._publish()

    def started(self, key: Hashable) -> None:
        """Tell the observer."""
        try:
            self._posted.driver.tell_start(key)
        except BaseException as error:
            self._posted.fail(key, error)

    def finished(self, key: Hashable, value: Any) -> None:
        """Tell the observer."""
        try:
            self._posted.driver.tell(key, value)
        except BaseException as error:
            self._posted.fail(key, error)

    # --- values of threads, for processes ----------------------------------------------------------------------------

    def _granted(self, grants: Sequence[m.Grant]) -> tuple[m.Grant, ...]:
        """Return grants with inputs that can travel; what needs others goes back to the threads."""
        granted = []
        for grant in grants:
            try:
                inputs = tuple([i._replace(value=self._sent(*i)) for i in grant.inputs])
                committed = grant.committed and self._sent(grant.task, grant.attempt, grant.committed)
            except CannotTravel as error:
                self._give_back(grant.task, error)
            else:
                granted.append(grant._replace(inputs=inputs, committed=committed))
        return tuple(granted)

    def _probed(self, task: int, state: m.State) -> m.State:
        if state.value is None:
            return state
        try:
            return state._replace(value=self._sent(task, state.attempt, state.value))
        except CannotTravel:
            # Whoever asks has to compute it again.
            return state._replace(value=None)

    def _sent(self, task: int, attempt: int, value: m.Value) -> m.Value:
        """Return a value as it travels; in the records it stays that way, unless it is one of the results."""
        if value.kind != m.INLINE or type(value.body) is Framed:
            return value
        job = self._job
        if type(value.body) is Left and self._pack.arena.holds(value.body.sealed):
            return self._lent(value_name(task, attempt), value.body.sealed)
        assert isinstance(job.control, MemoryControlStore)
        assert job.values is not None
        frame = check_travels(job.unpack(value.body), f"the value of task {self._plan.key(task)!r}")
        if frame.nbytes <= self.opening.costs.inline_limit:
            return m.Value(m.INLINE, frame.nbytes, Framed(bytes(frame)))
        job.values.put(value_name(task, attempt), frame.parts)
        sent = m.Value(m.STORED, frame.nbytes)
        if not self._plan.is_output(task):
            job.control.replace(job.name, home(task, job.control.shards), task, attempt, sent)
        return sent

    def _lent(self, name: str, sealed: Sealed) -> m.Value:
        """Return as a value of this job what lies in the arena already; it is not the job's to delete."""
        if isinstance(sealed, bytes):
            return m.Value(m.INLINE, len(sealed), Framed(sealed))
        self._pack.arena.name(self._job.name, name, sealed)
        return m.Value(m.STORED, len(sealed))

    def _give_back(self, task: int, error: CannotTravel) -> None:
        """Let the threads have a task that was granted to a process, but needs what cannot travel there."""
        job, placement = self._job, self._posted.placement
        if not isinstance(placement, ByKind) or task in placement.pinned:
            self._posted.fail(self._plan.key(task), error)
            return
        placement.keep(task, str(error))
        assert isinstance(job.control, MemoryControlStore)
        job.control.give_back(job.name, home(task, job.control.shards), task)
        self._posted.invoke([task], 1)


class _Desk:
    """The jobs of a pack, by name, and the ops that their executors send."""

    def __init__(self, pack: Pack) -> None:
        self.jobs: dict[str, Service] = {}
        self.page = Page()
        self._arena = pack.arena
        pack.serve("job.open", self._open)
        pack.serve("job.apply", self._apply)
        pack.serve("job.invoke", lambda _worker, _fds, job, *args: self._tell(job, Service.invoke, *args))
        pack.serve("job.ran", lambda _worker, _fds, job, *told: self._tell(job, Service.ran, *told))
        pack.serve("job.fail", self._fail)
        pack.serve("job.retried", lambda _worker, _fds, job: self._tell(job, Service.retried))
        pack.serve("job.finish", lambda _worker, _fds, job: self._tell(job, Service.finish))
        pack.serve("job.gone", lambda _worker, _fds, job: self._tell(job, Service.gone))
        pack.serve("job.started", lambda _worker, _fds, job, key: self._tell(job, Service.started, key))
        pack.serve("job.finished", self._finished)
        pack.serve("job.publish", self._publish)
        pack.serve("job.busy", lambda _worker, _fds, job: (self._ask_busy(job), ()))
        pack.serve("job.dropped", self._dropped)

    def _open(self, worker: Member, _fds: Any, job: str) -> Any:
        service = self.jobs.get(job)
        return (service and (service.opening, service.flag, worker.number, service.dropped)), (self.page.fd,)

    def _apply(self, _worker: Any, _fds: Any, job: str, shard: int, request: m.Request, spans: bytes) -> Any:
        service = self.jobs.get(job)
        if service:
            service.ran(spans)
        return (service.apply(shard, request) if service else (m.Reply(m.GONE, b"", ()), False)), ()

    def _fail(self, _worker: Any, _fds: Any, job: str, key: Hashable, frame: bytes) -> None:
        service = self.jobs.get(job)
        if service:
            service.fail(key, failures.unpack(frame))

    def _finished(self, worker: Member, _fds: Any, job: str, key: Hashable, wire: Wire | None) -> None:
        value = None
        if wire is not None:
            sealed = self._arena.take(worker, wire)
            with suppress(Exception):  # it cannot be loaded here, and need not be
                value = self._arena.unseal(sealed)
        self._tell(job, Service.finished, key, value)

    def _publish(self, _worker: Any, _fds: Any, job: str) -> tuple[None, tuple[int, ...]]:
        self._tell(job, Service.publish)
        return None, ()

    def _dropped(self, _worker: Any, _fds: Any, job: str) -> Any:
        service = self.jobs.get(job)
        return (service.dropped if service else (0, [])), ()

    def _ask_busy(self, job: str) -> bool:
        service = self.jobs.get(job)
        return service is not None and service.busy()

    def _tell(self, job: str, what: Callable[..., None], *args: Any) -> None:
        service = self.jobs.get(job)
        if service:
            what(service, *args)


_opening = Lock()
_desks: WeakKeyDictionary[Pack, _Desk] = WeakKeyDictionary()


def _desk_of(pack: Pack) -> _Desk:
    """Return the desk of a pack, which is set up with its first job."""
    with _opening:
        desk = _desks.get(pack)
        if desk is None:
            desk = _desks[pack] = _Desk(pack)
        return desk
