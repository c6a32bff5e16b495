"""Watching over a job, as steps without I/O: nothing that ends, gets lost or is forgotten leaves the job unfinished.

    sweep    executors that have lapsed, and ready tasks that nobody came for
    look     the same, and they are started again
    renew    executors that live do not lapse, however long their tasks take
    repair   the store has forgotten something: the job is opened anew from what is still known

Effects are those of executors (`wukong.executor.effects`); who carries them out is live code or the simulator.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.session import Session, Steps
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.sharding import home
from wukong.scheduler.launch import CHUNK, Whole, cancel, open_job

Known: TypeAlias = Mapping[int, tuple[int, m.Value]]

#: The reason that shards give while a job is opened again.
REPAIRING: Final = b"the job is being opened again"


class _Seen(NamedTuple):
    """What the records say.

    Attributes
    ----------
    known : dict
        Attempt and value of each task that is done and whose value is somewhere.
    begun : dict
        The last attempt of each of the others that was begun.
    undone : set of int
        Tasks that nobody has committed in the first epoch, if no later one was opened.
    gone : set of int
        Shards that know nothing of the job.
    """

    known: dict[int, tuple[int, m.Value]]
    begun: dict[int, int]
    undone: set[int]
    gone: set[int]


def sweep(
    shards: int, patience: float, dead: Iterable[str] = (), late: Iterable[int] = ()
) -> Generator[fx.Effect, Any, tuple[int, list[int]]]:
    """Find what would otherwise wait for ever.

    Parameters
    ----------
    shards : int
        Of the job's records.
    patience : float
        Seconds that a ready task may wait for whoever was invoked on it.
    dead : iterable of str
        Executors that are known to have ended.
    late : iterable of int
        Tasks that are to have a second executor.

    Returns
    -------
    int, list of int
        What the store says of the job: `GONE` if it has forgotten it, or it is released. And, while it runs, the tasks
        that are to be started.
    """
    dead, late = tuple(dead), tuple(late)
    found: list[int] = []
    for shard in range(shards):
        here = tuple(task for task in late if home(task, shards) == shard)
        reply = yield fx.Ask(shard, m.Sweep(patience, dead, here))
        if reply.status != m.RUNNING:
            return int(reply.status), []
        lapsed, unclaimed = reply.body
        found += [*lapsed, *unclaimed]
    return m.RUNNING, found


def look(
    shards: int, patience: float, dead: Iterable[str] = (), late: Iterable[int] = ()
) -> Generator[fx.Effect, Any, int]:
    """Have started again what `sweep` finds; return what the store says of the job."""
    status, found = yield from sweep(shards, patience, dead, late)
    if found:
        yield fx.Invoke(found, 1)
    return status


def renew(shards: int, nonces: Iterable[str], lease: float) -> Steps:
    """Prolong the leases of executors that are known to live."""
    for nonce in nonces:
        for shard in range(shards):
            yield fx.Ask(shard, m.Renew(nonce, lease))


def repair(
    plan: Whole,
    session: Session,
    epoch: int,
    without: Collection[int] = (),
    forgot: Callable[[], Collection[int]] | None = None,
) -> Steps:
    """Open a job again whose store has lost writes, and have started what is not done.

    What the records still prove to be done, and where its value is, is committed again under the new epoch; so the
    edges are there, whichever of them was forgotten. Executors of older epochs that live on do no harm: what they
    commit counts like that of any executor whose lease has lapsed. Until the whole job is open again it is over for
    all of them: what one does meanwhile would be known to shards of one epoch, and not to those of the other.

    A task that may run only once and is needed, but may have run already, ends the job.

    Parameters
    ----------
    plan : Whole
        What the job runs.
    session : Session
        A new one, of the client.
    epoch : int
        Greater than that of any opening before.
    without : collection of int
        Tasks whose values are known to be lost, whatever the records say.
    forgot : callable, optional
        Returns the shards that may have forgotten writes since they were opened; asked when the records have been
        read. All if None. What a shard has forgotten altogether is seen in any case.

    Returns
    -------
    list of int
        Tasks that run now though they had been begun before.

    Raises
    ------
    TaskLost
        If a task is needed that may run only once and may have run. The job is over for its executors then.
    """
    yield from cancel(session.shards, m.FAILED, REPAIRING)
    seen = yield from _look_up(plan, session, frozenset(without))
    known, wanted = seen.known, _wanted(plan, seen.known)
    everywhere = range(session.shards)
    for task in _may_have_run(plan, session, seen, everywhere if forgot is None else {*forgot(), *seen.gone}):
        if task in wanted:
            raise TaskLost(
                f"task {plan.key(task)!r} may run only once, and it may have run before the store lost data: its "
                "value is nowhere. Find out whether it has, and start it again if not."
            )
        # It is not needed now, but must not run when it is.
        known[task] = seen.begun.get(task, 1), m.Value(m.STORED, 0)
    ready = yield from open_job(plan, session, epoch, wanted)
    ready += yield from _commit(plan, session, known, wanted)
    if m.CLIENT in ready:
        yield fx.Finish()
    start = [task for task in dict.fromkeys(ready) if task != m.CLIENT]
    if start:
        yield fx.Invoke(start, 1)
    return [task for task in seen.begun if task in wanted]


def _look_up(plan: Whole, session: Session, without: frozenset[int]) -> Generator[fx.Effect, Any, _Seen]:
    """Return what the records say is done, and what was begun."""
    seen = _Seen({}, {}, set(), set())
    for shard, tasks in session.by_home(list(plan.tasks), lambda task: task):
        for start in range(0, len(tasks), CHUNK):
            chunk = tuple(tasks[start : start + CHUNK])
            reply = yield fx.Ask(shard, m.Probe(chunk))
            if reply.status == m.GONE:
                seen.gone.add(shard)
            # No states at all if the shard is gone.
            for task, state in zip(chunk, reply.body, strict=False):
                done = state.state in (states.UNSETTLED, states.SETTLED)
                if done and state.value is not None and state.value.kind != m.HELD and task not in without:
                    seen.known[task] = state.attempt, state.value
                elif m.tries(state.attempt):
                    seen.begun[task] = state.attempt
                if not done and state.attempt < m.EPOCH:
                    seen.undone.add(task)
    return seen


def _may_have_run(plan: Whole, session: Session, seen: _Seen, forgot: Collection[int]) -> list[int]:
    """Return the tasks that may run only once, may have run, and have no value.

    Where a shard has forgotten writes, whatever it does not know to be done may have run, unless a shard that has
    not says that an input was not there.
    """

    def waits(task: int) -> bool:
        return any(p in seen.undone and session.home(p) not in forgot for p in plan.inputs(task))

    return [
        task
        for task in plan.tasks
        if plan.once(task)
        and task not in seen.known
        and (task in seen.begun or (session.home(task) in forgot and not waits(task)))
    ]


def _wanted(plan: Whole, known: Known) -> set[int]:
    """Return the tasks that have to run for the outputs to be there."""
    wanted: set[int] = set()
    stack = [task for task in plan.outputs if task not in known]
    while stack:
        task = stack.pop()
        if task not in wanted:
            wanted.add(task)
            stack.extend(p for p in plan.inputs(task) if p not in known)
    return wanted


def _commit(plan: Whole, session: Session, known: Known, wanted: Collection[int]) -> Steps:
    """Commit what is known and still needed, each at its home, settle its edges, and return the children made ready."""
    outputs = len(plan.outputs)
    batches: dict[tuple[int, bool], list[m.Outcome]] = {}
    for task, (attempt, value) in known.items():
        edges = [m.Edge(child, indegree) for child, indegree in plan.edges(task) if child in wanted]
        if plan.is_output(task):
            edges.append(m.Edge(m.CLIENT, outputs))
        if not edges and not plan.once(task):
            continue
        away: dict[int, list[m.Edge]] = {}
        for edge in edges:
            away.setdefault(session.home(edge.child), []).append(edge)
        here = session.home(task)
        batches.setdefault((here, True), []).append(m.Outcome(task, attempt, value, tuple(away.pop(here, ()))))
        for shard, crossing in away.items():
            batches.setdefault((shard, False), []).append(m.Outcome(task, attempt, value, tuple(crossing)))
    ready: list[int] = []
    # Edges only after every value is known where it lives.
    for (shard, at_home), outcomes in sorted(batches.items(), key=lambda batch: not batch[0][1]):
        say = session.commit if at_home else session.arrive
        for start in range(0, len(outcomes), CHUNK // 16):
            for settlement in (yield from say(shard, outcomes[start : start + CHUNK // 16])):
                ready += settlement.ready
    return ready
