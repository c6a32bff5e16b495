"""What must hold of a simulated run at its end. What must hold of every request is in `wukong.simulation.witness`.

- Clients get the right results, or learn how else the job ended: the error of the task that raises, `TaskLost` of one
  that always kills its executor or that may run only once and was lost, that it was cancelled, or that another client
  has its end; and one client has it.
- Where nobody dies, nothing is computed twice, whatever the network does.
- After release nothing is left in the records, nor in the value store but what executors had written that died then.
  Where a shard has forgotten its release, or a copy of its opening came later, what is left ends with its TTL.
"""

from typing import TYPE_CHECKING

from wukong.protocol import messages as m
from wukong.simulation.client import End
from wukong.simulation.witness import Violation

if TYPE_CHECKING:
    from wukong.simulation.world import World


def check_end(world: "World") -> None:
    """Check a run that is over.

    Raises
    ------
    Violation
        If something that must hold did not.
    """
    if world.end is None:
        raise Violation("nobody knows how the job ended")
    for end in world.ends:
        _check(world, end)
    twice = world.tally.recomputed or world.tally.lost
    # Executors that come after the end to a job that a late copy has opened again do so, too.
    if world.calm and world.end.status == m.RUNNING and twice and not world.records.revived:
        raise Violation("something was computed twice though nobody died")
    if world.records.revived:
        if world.records.endless():
            raise Violation("records are left after release that will not end")
        return
    if world.records.left():
        raise Violation("records are left after release")
    left = [name for name in world.values.stored if not world.values.wrote[name].dead]
    if left:
        raise Violation(f"values are left after release: {left}")


def _check(world: "World", end: End) -> None:
    """Check what one client was told."""
    if end.status == m.RUNNING:
        if world.raiser is not None or world.faults.memory < 0:
            raise Violation("the job has results, though one of its tasks cannot be done")
        if end.results != world.plan.results():
            raise Violation(f"wrong results: {end.results}, not {world.plan.results()}")
    elif end.status == m.CANCELLED:
        if world.cancelled is None:
            raise Violation("the job was cancelled, but nobody asked for that")
    elif end.status == m.FAILED:
        expected = (world.raiser is not None and b"TaskRaised", world.may_lose_tasks() and b"TaskLost")
        if end.reason not in expected:
            raise Violation(f"the job failed: {end.reason!r}")
