"""Which shard a task's record lives in.

Tasks are numbered depth-first, so a block of neighbours is mostly a subtree: a task and the child it settles first
nearly always share a shard, and one script commits the task and settles the edge.
"""

from typing import Final

BLOCK: Final = 64


def home(task: int, shards: int) -> int:
    """Return the shard of `task`; the client's own record is in shard 0."""
    return 0 if shards == 1 or task < 0 else task // BLOCK % shards
