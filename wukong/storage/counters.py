"""What the stores count of their own use."""

from collections.abc import Sequence
from operator import sub
from typing import NamedTuple


class Counters(NamedTuple):
    """What a store has been used for so far, by all threads of this process."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def since(self, before: "Counters") -> tuple[int, ...]:
        """Return what was added since."""
        return tuple(map(sub, self, before))

    def plus(self, others: Sequence[tuple[int, ...]]) -> "Counters":
        """Return the sum of all."""
        return Counters(*map(sum, zip(self, *others, strict=True)))
