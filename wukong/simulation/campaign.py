"""Many seeds, one after the other or in several processes, and what happened in them all together."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from wukong.executor.context import Tally
from wukong.protocol import states
from wukong.simulation.faults import KINDS, Dice, Faults
from wukong.simulation.minimise import minimised
from wukong.simulation.world import Violation, World

#: Seeds that a process takes at a time.
_CHUNK = 250


@dataclass
class Summary:
    """What happened in many runs.

    Attributes
    ----------
    seeds : int
        How many there were.
    happened : Counter
        Faults by kind, and repairs.
    covered : Counter
        Faults by kind and state of the task that the step was about.
    ends : Counter
        Runs by how the job ended.
    tally : Tally
        What executors did.
    broken : dict
        The violation of each seed that broke what must hold.
    seconds : float
        Of processors, all together.
    """

    seeds: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    covered: Counter[tuple[str, int]] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=lambda: Tally(executors=0))
    broken: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other: "Summary") -> None:
        """Add what happened in other runs."""
        self.seeds += other.seeds
        self.happened += other.happened
        self.covered += other.covered
        self.ends += other.ends
        self.tally.add(other.tally)
        self.broken.update(other.broken)
        self.seconds += other.seconds

    def __str__(self) -> str:
        rate = self.seeds / self.seconds if self.seconds else 0.0
        lines = [f"{self.seeds:,} seeds, {len(self.broken)} violations, {rate:.0f} seeds a second of one processor"]
        lines.append("ends: " + ", ".join(f"{count:,} {end}" for end, count in self.ends.most_common()))
        names = Tally.__slots__
        lines.append("executors: " + ", ".join(f"{getattr(self.tally, name):,} {name}" for name in names))
        lines.append(f"repairs: {self.happened['repair']:,}")
        lines += ["", *self.table()]
        return "\n".join(lines)

    def table(self) -> Iterator[str]:
        """Yield the lines of a table: faults by kind and by state of the task that the step was about."""
        yield f"| {'fault':<9} | {'times':>10} |" + "".join(f" {name:>10} |" for name in states.NAMES)
        yield "|---|---:|" + "---:|" * len(states.NAMES)
        for kind in KINDS:
            counts = [self.covered[kind, state] for state in range(len(states.NAMES))]
            cells = "".join(f" {count or '':>10{',' if count else ''}} |" for count in counts)
            yield f"| {kind:<9} | {self.happened[kind]:>10,} |{cells}"


def faults_of(seed: int, kinds: Collection[str] | None) -> Faults:
    """Return the faults that a seed decides, of these kinds only."""
    return Faults.drawn(Dice.of(seed, "faults"), kinds)


def run(seeds: Sequence[int], kinds: Collection[str] | None = None, size: int | None = None) -> Summary:
    """Run seeds one after the other.

    Parameters
    ----------
    seeds : sequence of int
        Which.
    kinds : collection of str, optional
        Kinds of fault to be had; all if None.
    size : int, optional
        Tasks of each job; as the seed has it if None.
    """
    summary = Summary(seeds=len(seeds))
    began = time.process_time()
    for seed in seeds:
        world = World(seed, faults=faults_of(seed, kinds), size=size)
        try:
            world.run()
            assert world.end is not None
            summary.ends[("results", "failed", "cancelled")[world.end.status]] += 1
        except Violation as violation:
            summary.broken[seed] = str(violation)
        summary.happened += world.happened
        summary.covered += world.covered
        summary.tally.add(world.tally)
    summary.seconds = time.process_time() - began
    return summary


def run_many(
    seeds: range, kinds: Collection[str] | None = None, size: int | None = None, jobs: int = 1
) -> Iterator[Summary]:
    """Run seeds in `jobs` processes, and yield a summary of each few hundred as they are done."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    if jobs == 1:
        yield from (run(chunk, kinds, size) for chunk in chunks)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, chunk, kinds, size) for chunk in chunks]):
            yield done.result()


def explained(seed: int, kinds: Collection[str] | None = None, size: int | None = None) -> str:
    """Say how little it takes for a seed to break what must hold, with the last events of that run."""
    faults, size = minimised(seed, faults_of(seed, kinds), size)
    try:
        World(seed, faults=faults, size=size).run()
    except Violation as violation:
        left = ",".join(faults.kinds()) or "none"
        return f"{violation}\nminimised: wukong simulate --seed {seed} --faults {left} --tasks {size}"
    return f"seed {seed} breaks nothing"
