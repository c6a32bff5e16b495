"""The limits that control groups set to this process, in either version of them. Not what they limit."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

_ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")

T = TypeVar("T")


def limits(controller: str, read: Callable[[Path, bool], T], root: Path = _ROOT, own: Path = _OWN) -> list[T]:
    """Return every limit from this process's group up to the root.

    Parameters
    ----------
    controller : str
        Such as ``"cpu"``.
    read : callable
        ``read(directory, first_version) -> limit`` of one group; raises `OSError` or `ValueError` if it has none.
    """
    found: list[T] = []
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = root / controller if controllers else root
            group = base / path.lstrip("/")
            for place in (group, *group.parents):
                if not place.is_relative_to(base):
                    break
                # Inside a container the path may be the host's, and only the root is to be seen.
                with suppress(OSError, ValueError):
                    found.append(read(place, bool(controllers)))
    return found
