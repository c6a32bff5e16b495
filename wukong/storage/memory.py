"""How much memory this process may use, and which disk, of how much room. Not how much it uses."""

import os
import shutil
import sys
from pathlib import Path

from wukong import cgroups


def memory_here() -> int:
    """Return the bytes of memory that this process may use: what the machine has, or its cgroup if that is less."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *cgroups.limits("memory", _limit)])


def directory_of_dask() -> str | None:
    """Return where temporary files go, if Dask's `temporary-directory` says so now."""
    config = sys.modules.get("dask.config")
    return None if config is None else config.get("temporary-directory", None)


def disk_here(directory: str) -> int:
    """Return the bytes that are free on the file system of `directory`."""
    return shutil.disk_usage(directory).free


def _limit(group: Path, first_version: bool) -> int:
    # One of version 1 that is none is larger than any machine.
    return int((group / ("memory.limit_in_bytes" if first_version else "memory.max")).read_text())
