"""The picture of a run: a line for each row, a dot for each contestant, time on a logarithmic scale."""

from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import CONTESTANTS


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw medians as dots with their spread as lines, and first calls as rings."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.5 + 0.42 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = [name for name in CONTESTANTS if any(name in row["contestants"] for row in rows)]
    for number, name in enumerate(names):
        colour, marker = ("black", "D") if name == "wukong" else (f"C{number}", "o")
        # Side by side, so that none hides another.
        shift = 0.6 * (number / max(len(names) - 1, 1) - 0.5)
        for place, row in enumerate(rows):
            each = row["contestants"].get(name)
            if each is None or each["failed"]:
                continue
            if each["first"]:
                axes.plot(each["first"], place + shift, "o", color=colour, markersize=4, fillstyle="none", alpha=0.4)
            if each["warm"]:
                axes.plot([min(each["warm"]), max(each["warm"])], [place + shift] * 2, color=colour, linewidth=1)
                axes.plot(row["medians"][name], place + shift, marker, color=colour, markersize=5)
        axes.plot([], [], marker, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["row"] for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", alpha=0.2)
    axes.set_xlabel("seconds a call: dots are medians of warm calls with their spread, rings are first calls")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
