"""Run rows of the benchmark, print their tables, and leave every sample in a JSON file beside a plot.

python -m benchmarks.peers [--rows tree,spins] [--contestants wukong,ray] [--rounds 7] [--quick] [--out out/bench]
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.plot import plot
from benchmarks.peers.race import race
from benchmarks.peers.report import judge, machine, means, summary, table
from benchmarks.peers.rows import QUICK, ROWS


def main() -> int:
    """Run; return 1 if wukong failed in some row."""
    options = _options()
    which = "quick" if options.quick else options.size
    rounds = options.rounds or (2 if which == "quick" else 7)
    budget = options.budget or (1.5 if which == "quick" else 4.0)
    # Ended so, it still ends everybody else.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    here = machine()
    cores = here["cores"]
    found: list[dict[str, Any]] = []
    for name in options.rows or (QUICK if options.quick else ROWS):
        row = ROWS[name]
        names = [who for who in options.contestants if hasattr(CONTESTANTS[who], row.way)]
        figures = race(row, row.size(which), names, rounds, budget, cores, _tell)
        found.append(judge(row, row.size(which), figures, cores))
        _tell("")
        print(table(found[-1]), flush=True)
    print(summary(found))
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"machine": here, "size": which, "rounds": rounds, "rows": found, "means": means(found)}
    (options.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n")
    plot(found, options.out / "peers.png")
    return int(any(row["contestants"].get("wukong", {}).get("failed") for row in found))


def _options() -> argparse.Namespace:
    def names(known: dict[str, Any]) -> Any:
        def parse(text: str) -> list[str]:
            unknown = set(text.split(",")) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"no {', '.join(sorted(unknown))} here; there are {', '.join(known)}")
            return text.split(",")

        return parse

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=names(ROWS), help="names, separated by commas")
    parser.add_argument("--contestants", type=names(CONTESTANTS), default=list(CONTESTANTS), help="names, too")
    parser.add_argument("--rounds", type=int, help="most warm calls of each (7, quick 2)")
    parser.add_argument("--budget", type=float, help="seconds for the warm calls of each (4, quick 1.5)")
    parser.add_argument("--quick", action="store_true", help="smaller, fewer rows and rounds")
    parser.add_argument("--size", choices=("full", "quick", "tiny"), default="full", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    return parser.parse_args()


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:78}\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
