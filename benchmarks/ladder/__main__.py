"""Climb the ladder by interleaved rounds and print what each rung saves, with the paper's own ablation beside it.

    python -m benchmarks.ladder [--workloads gemm,tsqr] [--rounds 5] [--quick] [--out out/bench]

Values and records are in a private Valkey on a Unix socket, executors in processes that share nothing else. Bytes and
round trips are those of the client and all workers, at their sockets, the plan's publication and the queue included.
Where every value has one reader, as in TSQR, there is nothing to cluster.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

from benchmarks.ladder.pool import Figures, Pool, compiled
from benchmarks.ladder.rungs import RUNGS
from benchmarks.ladder.workloads import WORKLOADS
from benchmarks.peers.race import same
from benchmarks.peers.report import machine, seconds
from wukong.storage.server import EmbeddedServer

#: What each rung alone gave in the paper's ablation, which was of an SVD.
PAPER = {("svd", "+ hold"): "delayed I/O +46.2 %", ("svd", "+ cluster"): "clustering +48.8 %"}
CAPTION = (
    "Paper: the ablation of Wukong (SoCC '20), SVD of a square matrix of side 50,000 on AWS Lambda; many shards of the "
    "store, which have no rung here, +20.9 %, and 4.6 times as fast in all."
)


def climb(pool: Pool, name: str, size: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Return the figures of one workload on every rung, after a round that warms up."""
    work = WORKLOADS[name]
    plan, truth = compiled(work.make(*size)[0]), work.truth(*size)
    samples: dict[str, list[Figures]] = {rung: [] for rung in RUNGS}
    for turn in range(rounds + 1):
        for rung in RUNGS:
            value, figures = pool.run(plan, rung)
            if not same(value, truth):
                sys.exit(f"{name} on the rung {rung!r} is {value}, not {truth}")
            if turn:
                samples[rung].append(figures)
    return {
        "workload": name,
        "about": work.about.format(*size),
        "tasks": plan.size,
        "rungs": {
            rung: {
                "seconds": [each.seconds for each in taken],
                "round_trips": median(each.round_trips for each in taken),
                "megabytes": median(each.bytes for each in taken) / 1e6,
                "written": median(each.tally.writes for each in taken),
                "invocations": median(each.tally.invocations for each in taken),
            }
            for rung, taken in samples.items()
        },
    }


def table(found: dict[str, Any]) -> str:
    """Return a table in Markdown, with a line for each rung."""
    columns = ("rung", "time", "from..to", "faster", "round trips", "MB", "written", "invoked", "paper")
    first = median(next(iter(found["rungs"].values()))["seconds"])
    rows = [columns, ("---", *["---:"] * (len(columns) - 2), "---")]
    for rung, each in found["rungs"].items():
        middle, counts = median(each["seconds"]), (each["round_trips"], each["megabytes"], each["written"])
        rows.append(
            (
                rung,
                seconds(middle),
                f"{seconds(min(each['seconds']))}..{seconds(max(each['seconds']))}",
                f"{first / middle:.2f}x",
                *(f"{count:,.{digits}f}" for count, digits in zip(counts, (0, 1, 0), strict=True)),
                f"{each['invocations']:,.0f}",
                PAPER.get((found["workload"], rung), ""),
            )
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"**{found['about']}, {found['tasks']} tasks**", "", *lines, ""])


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Draw time, round trips and bytes of each rung as parts of those of the first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(found), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for work, axes in zip(found, figure.subplots(1, len(found), squeeze=False, sharey=True)[0], strict=True):
        for column, unit in enumerate(("seconds", "round_trips", "megabytes")):
            heights = [median(rung[unit]) if unit == "seconds" else rung[unit] for rung in work["rungs"].values()]
            places = [place + 0.27 * (column - 1) for place in range(len(heights))]
            axes.bar(places, [height / heights[0] for height in heights], 0.25, label=unit.replace("_", " "))
        axes.set_xticks(range(len(RUNGS)), RUNGS)
        axes.set_title(work["about"], fontsize="medium")
    figure.axes[0].set_ylabel("of the stateless rung")
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Climb, print, and leave JSON and a plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="names, separated by commas")
    parser.add_argument("--rounds", type=int, help="after one that warms up (5, quick 2)")
    parser.add_argument("--quick", action="store_true", help="smaller, and fewer rounds")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    rounds = options.rounds or (2 if options.quick else 5)
    found = []
    with EmbeddedServer() as server, Pool(server.url, machine()["cores"]) as pool:
        for name in options.workloads.split(","):
            work = WORKLOADS[name]
            found.append(climb(pool, name, work.quick if options.quick else work.full, rounds))
            print(table(found[-1]), flush=True)
    print(CAPTION)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ladder.json").write_text(json.dumps({"machine": machine(), "workloads": found}, indent=1) + "\n")
    plot(found, options.out / "ladder.png")


if __name__ == "__main__":
    main()
