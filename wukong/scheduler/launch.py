"""Launching a compiled plan and collecting its results: what the client does at both ends of a job.

The client is the parent of every leaf and the child of every output. Launching settles its edges to the leaves;
collecting is claiming the task `CLIENT`, which the last output makes ready.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Protocol

from wukong import serialize
from wukong.cost import Costs
from wukong.errors import JobStalled, StoreForgot
from wukong.executor import effects as fx
from wukong.executor.context import Schedule
from wukong.executor.driver import Driver, name
from wukong.executor.effects import Framed
from wukong.executor.job import Job
from wukong.executor.session import Ended, Session, Steps
from wukong.ids import new_nonce
from wukong.plan.reading import Plan
from wukong.protocol import messages as m
from wukong.scheduler.left import Left
from wukong.storage.arena import Arena

#: Most tasks, edges or inputs in one request.
CHUNK = 4096


class ValuesLost(StoreForgot):
    """Outputs whose records say that they are stored, and that are not.

    Attributes
    ----------
    tasks : list of int
        Which.
    """

    tasks: list[int]


class Whole(Schedule, Protocol):
    """A plan of which every task is at hand."""

    @property
    def tasks(self) -> Collection[int]: ...
    @property
    def leaves(self) -> Collection[int]: ...


def open_job(plan: Whole, session: Session, epoch: int = 0, wanted: Collection[int] | None = None) -> Steps:
    """Open every shard and settle the client's edges into the leaves; return those that are ready.

    Parameters
    ----------
    plan : Whole
        What is to run.
    session : Session
        The client's.
    epoch : int
        The job epoch; see docs/protocol.md.
    wanted : collection of int, optional
        The leaves that are to run, if not all.
    """
    leaves: list[list[int]] = [[] for _ in range(session.shards)]
    for leaf in plan.leaves:
        if wanted is None or leaf in wanted:
            leaves[session.home(leaf)].append(leaf)
    ready: list[int] = []
    for shard, tasks in enumerate(leaves):
        for start in range(0, max(len(tasks), 1), CHUNK):
            edges = tuple(m.Edge(task, 1) for task in tasks[start : start + CHUNK])
            root = m.Outcome(m.CLIENT, epoch, m.Value(m.STORED, 0), edges)
            for settlement in (yield from session.arrive(shard, (root,))):
                ready += settlement.ready
    return ready


def launch(plan: Whole, session: Session, costs: Costs) -> Steps:
    """Open a job and have executors started on its leaves."""
    yield from open_job(plan, session)
    if plan.leaves:
        yield fx.Invoke(list(plan.leaves), costs.group(costs.unknown))


def collect(plan: Whole, session: Session) -> Steps:
    """Return where the outputs are, as a list of `Input`; None if they are not complete, or somebody else's."""
    inputs: list[m.Input] = []
    for start in range(0, len(plan.outputs), CHUNK):
        grants = yield from session.claim(0, [(m.CLIENT, tuple(plan.outputs[start : start + CHUNK]))])
        if not grants:
            return None
        inputs += grants[0].inputs
    return inputs


def cancel(shards: int, status: int, reason: bytes) -> Steps:
    """End a job in every shard: executors see it with their next request."""
    for shard in range(shards):
        yield fx.Ask(shard, m.Cancel(status, reason))


def release(session: Session) -> Steps:
    """Remove all records of a job."""
    for shard in range(session.shards):
        yield from session.end(shard)


class Client:
    """The client's part in one job.

    Parameters
    ----------
    job : Job
        The job.
    plan : Plan
        The whole of its plan.
    """

    def __init__(self, job: Job, plan: Plan) -> None:
        self._job = job
        self._plan = plan
        self._session = Session(new_nonce(), job.costs.lease, job.control.shards)
        self._driver = Driver(job)

    def launch(self) -> None:
        """Open the job's shards and have executors started on its leaves."""
        self._follow(launch(self._plan, self._session, self._job.costs))

    def supply(self, values: Mapping[int, Any]) -> None:
        """Commit values of given tasks, which nobody runs, and have what they make ready invoked. One shard only."""
        job, plan = self._job, self._plan
        outcomes = []
        for task, value in values.items():
            edges = [m.Edge(child, indegree) for child, indegree in plan.edges(task)]
            if plan.is_output(task):
                edges.append(m.Edge(m.CLIENT, len(plan.outputs)))
            packed = job.pack(value)
            outcomes.append(m.Outcome(task, 1, m.Value(m.INLINE, packed.nbytes, packed.body), tuple(edges)))
        ready: list[int] = []
        for settlement in self._follow(self._session.commit(0, outcomes)):
            ready += settlement.ready
        if m.CLIENT in ready:
            ready.remove(m.CLIENT)
            job.invoker.finish()
        if ready:
            job.invoker.invoke(ready, job.costs.group(job.costs.unknown))

    def collect(self, arena: Arena | None = None) -> dict[int, Any]:
        """Return the values of the outputs, by task. The job must be ready.

        Parameters
        ----------
        arena : Arena, optional
            Where processes left their values, if these are to stay there: each is returned as a `Left`.
        """
        job = self._job
        results: dict[int, Any] = {}
        stored: list[tuple[int, int]] = []
        inputs = self._follow(collect(self._plan, self._session))
        if inputs is None:
            raise JobStalled(f"the results of job {job.name} are not complete, or another client has taken them")
        for task, attempt, value in inputs:
            if value.kind != m.INLINE:
                stored.append((task, attempt))
            elif arena is not None and type(value.body) is Framed:
                small = value.body.frame
                results[task] = Left(small, partial(serialize.loads, small))
            else:
                results[task] = job.open(task, value.body)
        names = [name(*pair) for pair in stored]
        if names and arena is not None:
            for (task, _), sealed in zip(stored, arena.find(job.name, names), strict=True):
                if sealed is None:
                    raise self._lost([task])
                results[task] = Left(sealed, partial(arena.unseal, sealed))
        elif names:
            assert job.values is not None, "a stored value without a value store"
            frames = job.values.get(names)
            if lost := [task for (task, _), frame in zip(stored, frames, strict=True) if frame is None]:
                raise self._lost(lost)
            for (task, _), frame in zip(stored, frames, strict=True):
                assert frame is not None
                results[task] = job.load(task, frame)
        return results

    def _lost(self, tasks: list[int]) -> ValuesLost:
        more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
        text = f"the store has lost the value of {self._plan.key(tasks[0])!r}{more} of job {self._job.name}"
        error = ValuesLost(text)
        error.tasks = tasks
        return error

    def cancel(self, status: int, reason: bytes) -> None:
        """End the job in every shard: executors see it with their next request."""
        self._driver.follow(cancel(self._job.control.shards, status, reason))

    def release(self) -> None:
        """Remove all records of the job."""
        self._driver.follow(release(self._session))

    def follow(self, steps: Callable[[Plan, Session], Steps]) -> Any:
        """Carry out steps in this client's name, and return what they return."""
        return self._follow(steps(self._plan, self._session))

    def anew(self, steps: Callable[[Plan, Session], Steps]) -> Any:
        """Do so under a new name, that of the client from now on: the store may not know how far the old one was."""
        self._session = Session(new_nonce(), self._job.costs.lease, self._job.control.shards)
        return self.follow(steps)

    def _follow(self, steps: Steps) -> Any:
        try:
            return self._driver.follow(steps)
        except Ended as end:
            raise JobStalled(f"job {self._job.name} has ended while its client was at work: {end.args[0]!r}") from None
