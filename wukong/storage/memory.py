"""How much memory this process may use, and how much disk there is. Not how much it uses."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def memory_here() -> int:
    """Return the bytes of memory that this process may use: what the machine has, or its cgroup if that is less."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_cgroup_limits()])


def disk_here(directory: str) -> int:
    """Return the bytes that are free on the file system of `directory`."""
    return shutil.disk_usage(directory).free


def _cgroup_limits(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return every limit above this process; a limit of version 1 that is none is larger than any machine."""
    limits = []
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                base, name = root / "memory", "memory.limit_in_bytes"
            elif not controllers:
                base, name = root, "memory.max"
            else:
                continue
            group = base / path.lstrip("/")
            for place in (group, *group.parents):
                if not place.is_relative_to(base):
                    break
                # Inside a container the path may be the host's, and only the root is to be seen.
                with suppress(OSError, ValueError):
                    limits.append(int((place / name).read_text()))
    return limits
