"""What the stores count of their own use."""

from typing import NamedTuple


class Counters(NamedTuple):
    """What a store has been used for so far, by all threads of this process."""

    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
