"""Launching a compiled plan and collecting its results: what the client does at both ends of a job.

The client is the parent of every leaf and the child of every output. Launching settles its edges to the leaves;
collecting is claiming the task `CLIENT`, which the last output makes ready.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from wukong import serialize
from wukong.errors import JobStalled, StoreError
from wukong.executor.driver import name
from wukong.executor.effects import Framed
from wukong.executor.job import Job
from wukong.ids import new_nonce
from wukong.plan.reading import Plan
from wukong.protocol import messages as m
from wukong.protocol.sharding import home
from wukong.scheduler.left import Left
from wukong.storage.arena import Arena

#: Most edges or inputs in one request.
_CHUNK = 4096


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
        self._nonce = new_nonce()
        self._seq = 0

    def launch(self) -> None:
        """Open the job's shards and have executors started on its leaves."""
        job, plan, shards = self._job, self._plan, self._job.control.shards
        leaves: list[list[int]] = [[] for _ in range(shards)]
        for leaf in plan.leaves:
            leaves[home(leaf, shards)].append(leaf)
        for shard, tasks in enumerate(leaves):
            for start in range(0, max(len(tasks), 1), _CHUNK):
                edges = tuple(m.Edge(task, 1) for task in tasks[start : start + _CHUNK])
                root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), edges)
                self._ask(shard, m.Arrive(self._nonce, *self._next(), (root,)))
        if plan.leaves:
            job.invoker.invoke(plan.leaves, job.costs.group(job.costs.unknown))

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
        for settlement in self._ask(0, m.Commit(self._nonce, *self._next(), tuple(outcomes))):
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
        outputs = self._plan.outputs
        for start in range(0, len(outputs), _CHUNK):
            wanted = tuple(outputs[start : start + _CHUNK])
            grants = self._ask(0, m.Claim(self._nonce, *self._next(), ((m.CLIENT, wanted),)))
            if not grants:
                raise JobStalled(f"the results of job {job.name} are not complete, or another client has taken them")
            for task, attempt, value in grants[0].inputs:
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
                    raise self._lost(task)
                results[task] = Left(sealed, partial(arena.unseal, sealed))
        elif names:
            assert job.values is not None, "a stored value without a value store"
            for (task, _), frame in zip(stored, job.values.get(names), strict=True):
                if frame is None:
                    raise self._lost(task)
                results[task] = job.load(task, frame)
        return results

    def _lost(self, task: int) -> StoreError:
        return StoreError(f"the store has lost the value of {self._plan.key(task)!r} of job {self._job.name}")

    def cancel(self, status: int, reason: bytes) -> None:
        """End the job in every shard: executors see it with their next request."""
        for shard in range(self._job.control.shards):
            self._job.control.apply(self._job.name, shard, m.Cancel(status, reason))

    def release(self) -> None:
        """Remove all records of the job."""
        for shard in range(self._job.control.shards):
            self._job.control.apply(self._job.name, shard, m.Release(self._nonce, *self._next(), everything=True))

    def _next(self) -> tuple[int, float]:
        self._seq += 1
        return self._seq, self._job.costs.lease

    def _ask(self, shard: int, request: m.Request) -> Any:
        reply = self._job.control.apply(self._job.name, shard, request)
        if reply.status != m.RUNNING:
            raise JobStalled(f"job {self._job.name} has ended while its client was at work: {reply.reason!r}")
        return reply.body
