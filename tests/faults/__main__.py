"""Prints what came of each real fault: how often it was injected, and how the jobs ended.

python -m tests.faults [processes] [stores] [memory] [--times 3] [--seed 0]
"""

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module

KINDS = ("processes", "stores", "memory")
LINE = "{:<46} {:>8} {:>6} {:>6} {:>6} {:>6} {:>9} {:>9}"


def main() -> int:
    """Print the table; return 1 if anything was wrong, hung, or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all if none is given")
    parser.add_argument("--times", type=int, default=3, help="how long it takes, about: times half a minute a kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    print(LINE.format("fault", "injected", "right", "errors", "wrong", "hangs", "leftovers", "slowest"), flush=True)
    for kind in options.kinds or KINDS:
        found: Iterator = import_module(f"tests.faults.{kind}").rows(options.times, options.seed)
        for row in found:
            slowest = f"{row.slowest:.1f} s"
            counts = (row.injected, row.right, row.errors, row.wrong, row.hangs, row.leftovers)
            print(LINE.format(row.fault, *counts, slowest), flush=True)
            bad += row.wrong + row.hangs + row.leftovers
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
