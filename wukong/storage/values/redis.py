"""Values in Redis or Valkey.

A job's values are fields of a few hashes, each with its own slot of a cluster, so that one UNLINK each is all it takes
to remove them, and one expiry each to be sure that they go.
"""

from binascii import crc32
from collections.abc import Sequence

from wukong.errors import StoreFull, ValueTooLarge
from wukong.storage.address import DAY
from wukong.storage.counters import Counters
from wukong.storage.link import ClusterLink, Link
from wukong.storage.resp import Argument, Buffer
from wukong.storage.room import SHARE, Room
from wukong.storage.values.base import Frame, size_of

#: Bytes of the largest value a server takes (`proto-max-bulk-len`, which is also its limit for a string).
LIMIT = 512 * 1024 * 1024
_ANY = 1024 * 1024  # no server can be told to take less than this
_CLUSTER_BUCKETS = 64


class RedisValueStore:
    """The values of one job behind a link.

    Parameters
    ----------
    link : Link
        The way to the server; it may be shared with a control store.
    job : str
        The job; part of every key.
    ttl : int
        Seconds that values stay after the last one was put, or they were prolonged.
    limit : int
        Bytes of the largest value.
    """

    def __init__(self, link: Link, job: str, ttl: int = DAY, limit: int = LIMIT) -> None:
        self.link = link
        self._limit = limit
        self._ttl = b"%d" % ttl
        buckets = _CLUSTER_BUCKETS if isinstance(link, ClusterLink) else 1
        self._keys = [f"wk:{{{job}/v{i}}}:values".encode() for i in range(buckets)]

    @property
    def counters(self) -> Counters:
        """See `ValueStore`; of the link, so with all who share it."""
        return self.link.counters

    def put(self, name: str, frame: Frame) -> None:
        """See `ValueStore`.

        Raises
        ------
        StoreFull
            If it has no room, or none but what it needs for records.
        """
        size, limit = size_of(frame), self._limit
        if size > _ANY:
            limit = min(limit, self.link.largest)
        if size > limit:
            raise ValueTooLarge(
                f"value {name} has {size} bytes and the store {self.link.address} takes at most {limit}: "
                "make the task's result smaller, for instance with smaller chunks"
            )
        key = self._key(name)
        # One transaction: whoever dies between the two would leave a key for ever.
        commands: list[tuple[Argument, ...]] = [
            (b"MULTI",),
            (b"HSET", key, name.encode(), frame),
            (b"EXPIRE", key, self._ttl),
            (b"EXEC",),
        ]
        room = self.link.room(key)
        if room is None:
            self.link.pipeline(key, *commands)
            return
        if not room.fits(size):
            room.note(self.link.call(key, b"INFO", b"memory"))
            if not room.fits(size):
                raise self._full(name, size, room)
        room.used += size
        if room.old:
            room.note(self.link.pipeline(key, *commands, (b"INFO", b"memory")))
            if not room.fits(0):
                # Others put theirs at the same time, and there was room for one.
                self.delete([name])
                raise self._full(name, size, room)
        else:
            self.link.pipeline(key, *commands)

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """See `ValueStore`. Large values come as bytearrays of their own, to be changed in place."""
        found: dict[str, Buffer | None] = {}
        for key, group in self._by_key(names).items():
            found.update(zip(group, self.link.call(key, b"HMGET", key, *(n.encode() for n in group)), strict=True))
        return [found[name] for name in names]

    def delete(self, names: Sequence[str]) -> None:
        """See `ValueStore`."""
        for key, group in self._by_key(names).items():
            self.link.call(key, b"HDEL", key, *(name.encode() for name in group))

    def clear(self) -> None:
        """See `ValueStore`."""
        for key in self._keys:
            self.link.call(key, b"UNLINK", key)

    def prolong(self) -> None:
        """Have all values stay as long as if they had been put now."""
        for key in self._keys:
            self.link.call(key, b"EXPIRE", key, self._ttl)

    def close(self) -> None:
        """See `ValueStore`."""
        self.link.close()

    def _full(self, name: str, size: int, room: Room) -> StoreFull:
        return StoreFull(
            f"value {name} of {size} bytes would fill the store {self.link.address}: it uses {room.used} bytes "
            f"of {room.limit}, and what is beyond {SHARE:.0%} of them is kept for records. Give it more memory "
            "(`maxmemory`), or make fewer or smaller values; `wukong clean` removes what dead jobs left"
        )

    def _key(self, name: str) -> bytes:
        return self._keys[crc32(name.encode()) % len(self._keys)]

    def _by_key(self, names: Sequence[str]) -> dict[bytes, list[str]]:
        groups: dict[bytes, list[str]] = {}
        for name in names:
            groups.setdefault(self._key(name), []).append(name)
        return groups
