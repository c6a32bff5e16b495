"""From figures to tables: medians and spread, ratios to the best peer, goals met and missed."""

import datetime
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.race import Figures
from benchmarks.peers.rows import MEANS, Row

Found = dict[str, Any]

_PACKAGES = ("wukong", "dask", "distributed", "ray", "lithops", "numpy", "pandas", "pyarrow")


def judge(row: Row, size: tuple[Any, ...], figures: Mapping[str, Figures], cores: int) -> Found:
    """Return what there is to say of one row: every sample, the best peer, ratios, and which goals were missed."""
    warm = {name: median(each.warm) for name, each in figures.items() if each.warm and not each.failed}
    peers = {
        name: seconds
        for name, seconds in warm.items()
        if CONTESTANTS[name].peer and row.way not in CONTESTANTS[name].sampled
    }
    found: Found = {
        "row": row.name,
        "about": row.about.format(*size),
        "contestants": {
            name: {
                "first": each.first,
                "warm": each.warm,
                "failed": each.failed,
                "sampled": CONTESTANTS[name].sampled.get(row.way, 1),
            }
            for name, each in figures.items()
        },
        "medians": warm,
        "goal": row.goal,
        "ratios": {},
        "missed": [],
    }
    missed = found["missed"]
    if each := figures.get("wukong"):
        if each.failed:
            missed.append(f"wukong failed: {each.failed}")
        elif peers:
            best = found["best peer"] = min(peers, key=peers.__getitem__)
            found["ratios"] = {"best peer": warm["wukong"] / peers[best]}
            if "distributed" in peers:
                found["ratios"]["distributed"] = warm["wukong"] / peers["distributed"]
            in_spread = row.goal >= 1 and warm["wukong"] <= max(figures[best].warm)
            if found["ratios"]["best peer"] > row.goal and not in_spread:
                missed.append(f"{found['ratios']['best peer']:.2f} of {best}, not {row.goal:g}")
    for limit in row.limits:
        if limit.of in warm and limit.whose in warm:
            most = limit.factor * warm[limit.of] / (cores if limit.per_core else 1)
            if warm[limit.whose] > most:
                missed.append(f"{limit}: it takes {seconds(warm[limit.whose])}, not {seconds(most)}")
    return found


def means(rows: list[Found]) -> dict[str, float]:
    """Return the geometric means of the ratios of all rows, where there are any."""
    found = {}
    for name in MEANS:
        ratios = [row["ratios"][name] for row in rows if name in row["ratios"]]
        if ratios:
            found[name] = exp(sum(map(log, ratios)) / len(ratios))
    return found


def table(row: Found) -> str:
    """Return one row's figures, a line for each contestant."""
    best = row["medians"].get(row.get("best peer"))
    head = f"    {'':18}{'first':>10}{'warm':>10}   {'from .. to':22}calls  to best peer"
    lines = [f"{row['row']}: {row['about']}", head]
    for name, each in row["contestants"].items():
        if each["failed"]:
            lines.append(f"    {name:18}failed: {each['failed'][:100]}")
            continue
        line = f"    {name:18}{seconds(each['first']):>10}"
        if each["warm"]:
            spread = f"{seconds(min(each['warm']))} .. {seconds(max(each['warm']))}"
            ratio = f"{row['medians'][name] / best:12.2f}" if best else ""
            line += f"{seconds(row['medians'][name]):>10}   {spread:22}{len(each['warm']):5}{ratio}"
        sampled = f"  only one call in {each['sampled']}" if each["sampled"] > 1 else ""
        lines.append(line + sampled)
    return "\n".join(lines)


def summary(rows: list[Found]) -> str:
    """Return a line for each row, the geometric means, and what was missed."""
    lines = [f"{'row':16}{'wukong':>10}{'best peer':>12}  {'':16}{'ratio':>7}{'goal':>7}{'first call: ours, best':>26}"]
    for row in rows:
        best = row.get("best peer")
        if best is None:
            continue
        firsts = {name: each["first"] for name, each in row["contestants"].items() if each["first"] is not None}
        others = min(first for name, first in firsts.items() if CONTESTANTS[name].peer)
        first = f"{seconds(firsts['wukong'])}, {seconds(others)}"
        lines.append(
            f"{row['row']:16}{seconds(row['medians']['wukong']):>10}{seconds(row['medians'][best]):>12}  {best:16}"
            f"{row['ratios']['best peer']:7.2f}{row['goal']:7.2f}{first:>26}  {'MISSED' if row['missed'] else 'met'}"
        )
    for name, mean in means(rows).items():
        verdict = "met" if mean <= MEANS[name] else "MISSED"
        lines.append(f"geometric mean of all rows, to {name}: {mean:.3f}, goal {MEANS[name]:g}: {verdict}")
    lines += [f"missed: {row['row']}: {miss}" for row in rows for miss in row["missed"]]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """Return a time for people."""
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"


def machine() -> Found:
    """Return what a run has to be known by: when, on what, and with which versions."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
