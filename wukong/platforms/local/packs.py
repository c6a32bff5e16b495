"""The packs of this process that no client owns: for computes that ask for processes and bring none."""

import sys
import threading

from wukong.platforms.local.pack import Pack
from wukong.platforms.local.processors import workers_here

_packs: dict[int, Pack] = {}
_starting = threading.Lock()


def pack_of(workers: int, start: bool = True) -> Pack | None:
    """Return a pack of at least so many workers; if there is none, start one, which ends with this process, or None."""
    workers = max(workers, workers_here())
    with _starting:
        pack = _packs.get(workers)
        if start and (pack is None or not pack.usable):
            pack = _packs[workers] = Pack(workers)
        return pack


def in_worker() -> bool:
    """Whether this process is a worker itself, where a compute runs in the one task it is part of."""
    module = sys.modules.get("wukong.platforms.local.worker")
    return module is not None and module.current is not None
