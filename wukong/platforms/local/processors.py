"""How many processors this process may use, and how many threads each of several workers may. Not who uses them."""

import os
from collections.abc import Mapping
from functools import cache
from math import ceil
from pathlib import Path
from typing import Final

from wukong import cgroups

#: What the libraries that start threads of their own read when they are loaded.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


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
    return min([float(os.cpu_count() or 1), *cgroups.limits("cpu", _quota)])


def _quota(group: Path, first_version: bool) -> float:
    """Return the limit of a group, in processors."""
    if first_version:
        quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    else:
        quota, period = (group / "cpu.max").read_text().split()
    processors = int(quota) / int(period)
    if processors <= 0:
        raise ValueError(f"{group} has no quota")
    return processors
