"""Simulated runs on the Lua of a running server, in the server's own records and virtual time."""

from types import SimpleNamespace
from typing import Any

import msgpack

from wukong.ids import new_job
from wukong.protocol.model import _Active
from wukong.simulation.records import Records
from wukong.simulation.world import World
from wukong.storage.control.redis import _keys
from wukong.storage.link import Script
from wukong.storage.open import open_control

# Places in a record of control.lua, from the first one stored.
DONE, KIND, VALUE_ATTEMPT, STATE, ATTEMPT, OWNER, SINCE, ARRIVED = 0, 2, 3, 4, 5, 6, 7, 10


class LuaShards:
    """Makes the shards of one job after the other on a server, with a script of its own."""

    def __init__(self, url: str, script: Script | None = None) -> None:
        self.now = 0.0
        self.store: Any = open_control(url, clock=lambda: self.now)
        if script is not None:
            self.store._script = script
        self._made = 0
        self._job = new_job()

    def __call__(self) -> "LuaShard":
        self._made += 1
        return LuaShard(self, self._job, self._made)

    def close(self) -> None:
        """Remove what broken runs have left."""
        for number in range(1, self._made + 1):
            for key in _keys(self._job, number):
                self.store.link.call(key, b"DEL", key)
        self.store.close()


class LuaShard:
    """A shard on a server, with what the simulator reads of a model."""

    def __init__(self, shards: LuaShards, job: str, number: int) -> None:
        self._shards = shards
        self._job = job
        self._number = number
        self._keys = _keys(job, number)
        self._read()

    def apply(self, request: Any, now: float) -> Any:
        self._shards.now = now
        reply = self._shards.store.apply(self._job, self._number, request)
        self._read()
        return reply

    def snapshot(self) -> list[tuple[bytes | None, int]]:
        return [(self._call(b"DUMP", key), self._call(b"PTTL", key)) for key in self._keys]

    def restore(self, dumped: list[tuple[bytes | None, int]]) -> None:
        for key, (value, lasts) in zip(self._keys, dumped, strict=True):
            self._call(b"DEL", key)
            if value is not None:
                self._call(b"RESTORE", key, b"%d" % max(lasts, 0), value)
        self._read()

    def endless(self) -> bool:
        """Whether a key of it never expires."""
        return any(self._call(b"PTTL", key) == -1 for key in self._keys)

    def _call(self, command: bytes, key: bytes, *arguments: bytes) -> Any:
        return self._shards.store.link.call(key, command, key, *arguments)

    def _read(self) -> None:
        """Read what the server knows."""
        self.active: dict[int, _Active] = {}
        self.done: dict[int, int] = {}
        self.values: dict[int, Any] = {}
        self.arrived: dict[int, int] = {}
        self.executors: dict[str, Any] = {}
        for name, packed in self._pairs(self._keys[0]):
            if not name:
                continue
            task = int(name)
            record = list(unpacked(packed))
            record += [None] * (ARRIVED + 1 - len(record))
            if record[DONE] is not None:
                self.done[task] = record[DONE]
            if record[KIND] is not None:
                self.values[task] = record[VALUE_ATTEMPT]
            if record[STATE] is not None:
                self.active[task] = _Active(*record[STATE : SINCE + 1])
            if record[ARRIVED] is not None:
                self.arrived[task] = record[ARRIVED]
        fields = dict(self._pairs(self._keys[3]))
        self.open = bool(fields)
        self.base: int = list(unpacked(fields[b""]))[2] if self.open else 0
        for name, packed in fields.items():
            if name and not name.startswith(b"="):
                self.executors[name.decode()] = SimpleNamespace(deadline=list(unpacked(packed))[1])

    def _pairs(self, key: bytes) -> list[tuple[bytes, bytes]]:
        flat = self._call(b"HGETALL", key)
        return list(flat.items()) if isinstance(flat, dict) else list(zip(flat[::2], flat[1::2], strict=True))


class LuaRecords(Records):
    """Records on `LuaShards`."""

    @staticmethod
    def snapshot(shard: Any) -> Any:
        return shard.snapshot()

    @staticmethod
    def restore(shard: Any, known: Any) -> None:
        shard.restore([(None, 0)] * 6 if known is None else known)

    def endless(self) -> bool:
        shards: list[Any] = list(self.shards)
        return any(shard.endless() for shard in shards)


class LuaWorld(World):
    """A job on `LuaShards`."""

    most_steps = 5_000
    keeps = LuaRecords


def unpacked(packed: bytes) -> Any:
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(packed)
    return unpacker
