"""Making a failing run smaller: fewer kinds of fault, fewer tasks, as long as it still fails."""

from typing import Any

from wukong.simulation.faults import Faults
from wukong.simulation.world import Violation, World


def fails(seed: int, faults: Faults, size: int | None, **broken: Any) -> bool:
    """Whether a run breaks what must hold."""
    try:
        World(seed, faults=faults, size=size, **broken).run()
    except Violation:
        return True
    return False


def minimised(seed: int, faults: Faults, size: int | None, **broken: Any) -> tuple[Faults, int]:
    """Return fewer faults and fewer tasks with which a failing seed still fails.

    Parameters
    ----------
    seed : int
        Of the run.
    faults : Faults
        Of the run.
    size : int, optional
        Its number of tasks; as the seed has it if None.
    **broken
        What the world is made of, if not of the true parts.

    Returns
    -------
    (Faults, int)
        What is left of the faults, none of which can be taken away alone, and the number of tasks. Unchanged if the
        seed does not fail.
    """
    whole = len(World(seed, faults=faults, size=size).plan.tasks)
    if not fails(seed, faults, whole, **broken):
        return faults, whole
    smaller = True
    while smaller:
        smaller = False
        for kind in faults.kinds():
            if fails(seed, faults.without(kind), whole, **broken):
                faults, smaller = faults.without(kind), True
        for size in range(1, whole):
            if fails(seed, faults, size, **broken):
                whole, smaller = size, True
                break
    return faults, whole
