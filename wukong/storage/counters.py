"""What the stores count of their own use."""

from operator import add, sub
from typing import NamedTuple


class Counters(NamedTuple):
    """What a store has been used for so far, by all threads of this process."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def plus(self, other: "Counters") -> "Counters":
        """Return the sum of both."""
        return Counters(*map(add, self, other))

    def since(self, before: "Counters") -> "Counters":
        """Return what was added since."""
        return Counters(*map(sub, self, before))
