"""Watching over a job, as steps without I/O: nothing that ends, gets lost or is forgotten leaves the job unfinished.

    look     executors that have lapsed, and ready tasks that nobody came for: both are started again
    repair   the store has forgotten something: the job is opened anew from what is still known

Effects are those of executors (`wukong.executor.effects`); who carries them out is live code or the simulator.
"""

from collections.abc import Collection, Generator, Iterable, Mapping
from typing import Any, TypeAlias

from wukong.executor import effects as fx
from wukong.executor.session import Session, Steps
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.sharding import home
from wukong.scheduler.launch import CHUNK, Whole, open_job

Known: TypeAlias = Mapping[int, tuple[int, m.Value]]


def look(
    shards: int, patience: float, dead: Iterable[str] = (), late: Iterable[int] = ()
) -> Generator[fx.Effect, Any, int]:
    """Have started again what would otherwise wait for ever.

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
    int
        What the store says of the job: `GONE` if it has forgotten it, or it is released.
    """
    dead, late, found = tuple(dead), tuple(late), []
    for shard in range(shards):
        here = tuple(task for task in late if home(task, shards) == shard)
        reply = yield fx.Ask(shard, m.Sweep(patience, dead, here))
        if reply.status != m.RUNNING:
            return int(reply.status)
        lapsed, unclaimed = reply.body
        found += [*lapsed, *unclaimed]
    if found:
        yield fx.Invoke(found, 1)
    return m.RUNNING


def repair(plan: Whole, session: Session, epoch: int, without: Collection[int] = ()) -> Steps:
    """Open a job again whose store has lost writes, and have started what is not done.

    What the records still prove to be done, and where its value is, is committed again under the new epoch; so the
    edges are there, whichever of them was forgotten. Executors of older epochs that live on do no harm: what they
    commit counts like that of any executor whose lease has lapsed.

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

    Returns
    -------
    list of int
        Tasks that run now though they had been begun before.
    """
    known, begun = yield from _known(plan, session, frozenset(without))
    for shard in range(session.shards):
        yield from session.end(shard)
    wanted = _wanted(plan, known)
    ready = yield from open_job(plan, session, epoch, wanted)
    ready += yield from _commit(plan, session, known, wanted)
    if m.CLIENT in ready:
        yield fx.Finish()
    start = [task for task in dict.fromkeys(ready) if task != m.CLIENT]
    if start:
        yield fx.Invoke(start, 1)
    return [task for task in begun if task in wanted]


def _known(
    plan: Whole, session: Session, without: frozenset[int]
) -> Generator[fx.Effect, Any, tuple[dict[int, tuple[int, m.Value]], list[int]]]:
    """Return what the records say is done, with attempt and value, and which other tasks were begun."""
    known: dict[int, tuple[int, m.Value]] = {}
    begun: list[int] = []
    for shard, tasks in session.by_home(list(plan.tasks), lambda task: task):
        for start in range(0, len(tasks), CHUNK):
            chunk = tuple(tasks[start : start + CHUNK])
            reply = yield fx.Ask(shard, m.Probe(chunk))
            # No states at all if the shard is gone.
            for task, state in zip(chunk, reply.body, strict=False):
                done = state.state in (states.UNSETTLED, states.SETTLED)
                if done and state.value is not None and state.value.kind != m.HELD and task not in without:
                    known[task] = state.attempt, state.value
                elif m.tries(state.attempt):
                    begun.append(task)
    return known, begun


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
        if not edges:
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
