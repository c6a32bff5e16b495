"""``python -m wukong.simulation --seeds N``: run seeds one after the other and say what happened in them."""

import argparse
import sys
import time
from collections import Counter

from wukong.executor.context import Tally
from wukong.simulation.world import Violation, World


def main() -> int:
    """Run the seeds; the exit status is 1 if any of them broke what must hold."""
    parser = argparse.ArgumentParser(prog="python -m wukong.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    options = parser.parse_args()
    happened: Counter[str] = Counter()
    tally = Tally(executors=0)
    broken = []
    began = time.perf_counter()
    for seed in range(options.first, options.first + options.seeds):
        world = World(seed)
        try:
            world.run()
        except Violation as violation:
            broken.append(seed)
            print(violation, file=sys.stderr)
        happened += world.happened
        tally.add(world.tally)
    seconds = time.perf_counter() - began
    print(f"{options.seeds} seeds, {len(broken)} violations, {options.seeds / seconds:.0f} seeds/s")
    for what, times in sorted(happened.items()):
        print(f"  {times:>10,}  {what}")
    for name in Tally.__slots__:
        print(f"  {getattr(tally, name):>10,}  {name}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
