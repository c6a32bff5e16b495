"""``wukong simulate``: run seeds and say what happened in them. The command line itself is in `wukong.cli`."""

import os
import sys
import time

from wukong.errors import ConfigError
from wukong.protocol import messages as m
from wukong.simulation.campaign import Summary, explained, faults_of, run_many
from wukong.simulation.faults import chosen
from wukong.simulation.world import Violation, World

#: Failing seeds that are explained; of the others only the numbers are told.
_EXPLAINED = 3


def simulate(
    seeds: int = 1000,
    first: int = 0,
    seed: int | None = None,
    faults: str | None = None,
    tasks: int | None = None,
    jobs: int = 1,
) -> int:
    """Run seeds, print what happened, and return the exit status: 1 if any broke what must hold.

    Parameters
    ----------
    seeds, first : int
        How many, and from which on.
    seed : int, optional
        Run this one alone, and print its last events.
    faults : str, optional
        Kinds of fault with commas between them, or ``none``; all if None.
    tasks : int, optional
        Tasks of each job; 1 to 16, as the seed has it, if None.
    jobs : int
        Processes.

    Raises
    ------
    ConfigError
        If there is no such kind of fault, or a number is out of range.
    """
    for name, number in (("seeds", seeds), ("jobs", jobs), ("tasks", 1 if tasks is None else tasks)):
        if number < 1:
            raise ConfigError(f"--{name} {number}: it has to be 1 or more")
    kinds = None if faults is None else () if faults == "none" else chosen(faults)
    if seed is not None:
        return _one(seed, kinds, tasks)
    summary = Summary()
    began = time.perf_counter()
    for part in run_many(range(first, first + seeds), kinds, tasks, jobs):
        summary.add(part)
        _progress(summary.seeds, seeds, len(summary.broken))
    _progress()
    print(summary)
    print(f"\n{time.perf_counter() - began:.1f} s with {jobs} {'process' if jobs == 1 else 'processes'}")
    for broken in sorted(summary.broken)[:_EXPLAINED]:
        print("\n" + explained(broken, kinds, tasks))
    if len(summary.broken) > _EXPLAINED:
        print("\nalso broken: " + ", ".join(map(str, sorted(summary.broken)[_EXPLAINED:])))
    return int(bool(summary.broken))


def _one(seed: int, kinds: tuple[str, ...] | None, tasks: int | None) -> int:
    world = World(seed, faults=faults_of(seed, kinds), size=tasks)
    try:
        world.run()
    except Violation:
        print(explained(seed, kinds, tasks))
        return 1
    assert world.end is not None
    for now, name, what in world.trace:
        print(f"{now:9.4f} {name}: {what}")
    how = "results" if world.end.status == m.RUNNING else world.end.reason.decode()
    met = ", ".join(f"{kind} {times}" for kind, times in sorted(world.happened.items())) or "none"
    tasks, shards = len(world.plan.tasks), len(world.records.shards)
    print(f"\nseed {seed}: {tasks} tasks on {shards} shards, {how} after {world.now:.1f} s")
    print(f"faults that could happen: {', '.join(world.faults.kinds()) or 'none'}\nthat did: {met}")
    return 0


def _progress(done: int = 0, of: int = 0, broken: int = 0) -> None:
    """Tell a terminal how far it is."""
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        text = f"\r{done:,} of {of:,} seeds, {broken} violations" if of else "\r\x1b[K"
        print(text, end="", file=sys.stderr, flush=True)
