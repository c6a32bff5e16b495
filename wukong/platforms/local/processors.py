"""How many processors this process may use, and how many threads each of several workers may. Not who uses them."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from math import ceil
from pathlib import Path
from typing import Final

#: What the libraries that start threads of their own read when they are loaded.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def workers_here() -> int:
    """Return how many processors this process may use: its affinity, or its cgroup's quota (rounded up) if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, ceil(_quota_here())))


def threads_each(share: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that keeps a process to its share of the processors.

    Parameters
    ----------
    share : int
        Processors divided by workers, at least 1.
    environ : mapping
        What the user has set; it stays if it is less.
    """
    each = {}
    for name in THREAD_VARIABLES:
        # OMP_NUM_THREADS may be a list, one number for each level of nesting.
        wish = environ.get(name, "").partition(",")[0].strip()
        each[name] = environ[name] if wish.isdecimal() and 0 < int(wish) <= share else str(share)
    return each


@cache
def _quota_here() -> float:
    # Quotas hardly ever change, and reading them takes longer than the affinity.
    return min([float(os.cpu_count() or 1), *_quotas()])


def _quotas(root: Path = _CGROUPS, own: Path = _OWN) -> list[float]:
    """Return every limit above this process, in processors; either version of cgroups."""
    quotas: list[float] = []
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                base = root
            elif "cpu" in controllers.split(","):
                base = root / "cpu"
            else:
                continue
            group = base / path.lstrip("/")
            for place in (group, *group.parents):
                if not place.is_relative_to(base):
                    break
                # Inside a container the path may be the host's, and only the root is to be seen.
                with suppress(OSError, ValueError):
                    quotas += _quota(place, bool(controllers))
    return quotas


def _quota(place: Path, first_version: bool) -> list[float]:
    if first_version:
        quota = int((place / "cpu.cfs_quota_us").read_text())
        return [quota / int((place / "cpu.cfs_period_us").read_text())] if quota > 0 else []
    text, period = (place / "cpu.max").read_text().split()
    return [] if text == "max" else [int(text) / int(period)]
