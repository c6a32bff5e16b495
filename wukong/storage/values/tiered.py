"""Several value stores as one: the cheapest tier that takes a value gets it, and the choice says why.

What a tier refuses, as it is full or the value too large for it after all, goes to the next.

The thresholds are not made here: `wukong.cost` knows what rides with a record, and each tier what it can take.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from wukong.errors import StoreFull, ValueTooLarge
from wukong.storage.counters import Counters
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame, ValueStore, size_of

#: The tier of values that ride with their record in the control store; nothing is put there.
INLINE = "inline"


class Thresholds(Protocol):
    """What a placement asks of the costs; `wukong.cost.Costs` is one."""

    @property
    def inline_limit(self) -> int:
        """Largest value, in bytes, that is cheaper to send with its record than by a round trip of its own."""


class Tier(NamedTuple):
    """A store and the largest value, in bytes, that it is meant for. Cheapest first."""

    name: str
    store: ValueStore
    limit: int


class Placement(NamedTuple):
    """Where a value goes, and why, in words for people."""

    tier: str
    reason: str


class TieredValueStore:
    """Value stores in the order of their cost.

    Parameters
    ----------
    tiers : sequence of Tier
        Cheapest first. All of them must be within reach of every executor of the job.
    costs : Thresholds
        What decides about riding with the record.
    """

    def __init__(self, tiers: Sequence[Tier], costs: Thresholds) -> None:
        self._tiers = tuple(tiers)
        self._costs = costs

    @property
    def counters(self) -> Counters:
        """See `ValueStore`; of all tiers together."""
        return Counters(*map(sum, zip(*(tier.store.counters for tier in self._tiers), strict=True)))

    def place(self, nbytes: int) -> Placement:
        """Say where a value of `nbytes` goes.

        Raises
        ------
        ValueTooLarge
            If no tier takes it.
        """
        inline = self._costs.inline_limit
        if nbytes <= inline:
            return Placement(INLINE, f"{nbytes} bytes <= {inline}: sent with its record it saves a round trip")
        tier = self._tier(nbytes)
        cheaper = self._tiers[: self._tiers.index(tier)]
        passed = "".join(f", more than {t.name} takes ({t.limit})" for t in cheaper)
        return Placement(tier.name, f"{nbytes} bytes > {inline}, so not with its record{passed}; within {tier.name}")

    def put(self, name: str, frame: Frame) -> None:
        """See `ValueStore`.

        Raises
        ------
        StoreFull, ValueTooLarge
            What the cheapest tier said, if no other takes it either; that they do not is in its notes.
        """
        first = self._tier(size_of(frame))
        refused: StoreFull | ValueTooLarge | None = None
        for tier in self._tiers[self._tiers.index(first) :]:
            try:
                tier.store.put(name, frame)
            except (StoreFull, ValueTooLarge) as error:
                if refused is None:
                    refused = error
                else:
                    refused.add_note(f"wukong: nor was there room elsewhere: {error}")
            else:
                return
        assert refused is not None, "there is a tier"
        raise refused

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """See `ValueStore`; a dearer tier is asked only for what the cheaper ones do not have."""
        found: dict[str, Buffer] = {}
        missing = list(names)
        for tier in self._tiers:
            if missing:
                values = tier.store.get(missing)
                found.update((n, v) for n, v in zip(missing, values, strict=True) if v is not None)
                missing = [name for name in missing if name not in found]
        return [found.get(name) for name in names]

    def delete(self, names: Sequence[str]) -> None:
        """See `ValueStore`."""
        for tier in self._tiers:
            tier.store.delete(names)

    def clear(self) -> None:
        """See `ValueStore`. The dearest tier first: files go though a server does not answer."""
        for tier in reversed(self._tiers):
            tier.store.clear()

    def close(self) -> None:
        """See `ValueStore`."""
        for tier in self._tiers:
            tier.store.close()

    def _tier(self, nbytes: int) -> Tier:
        for tier in self._tiers:
            if nbytes <= tier.limit:
                return tier
        tiers = ", ".join(f"{tier.name} {tier.limit}" for tier in self._tiers)
        raise ValueTooLarge(f"a value has {nbytes} bytes, more than any store takes ({tiers}): make it smaller")
