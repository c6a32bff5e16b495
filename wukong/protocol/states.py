"""The states of a task's record, and the moves between them.

    WAITING --last edge--> READY --claim--> CLAIMED --commit--> SETTLED
                             ^                 |  \\                ^
                             |    lease lapsed |   commit, edges   | all edges
                             +-----------------+   left elsewhere  | settled
                             |                      \\              |
                             +---- lease lapsed ---- UNSETTLED ----+

*Ready* is written with the edge that makes it so. A task is `UNSETTLED` only where its edges lie in several shards.
"""

from typing import Final

WAITING: Final = 0  # edges are missing (or none has arrived)
READY: Final = 1  # complete, owned by nobody
CLAIMED: Final = 2  # owned by one executor, under its lease
UNSETTLED: Final = 3  # committed; edges into other shards may be missing; owned by the executor that settles them
SETTLED: Final = 4  # committed, all edges settled

NAMES: Final = ("WAITING", "READY", "CLAIMED", "UNSETTLED", "SETTLED")
