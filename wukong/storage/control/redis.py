"""The control store on Redis 6.2+ or Valkey, one node or a cluster: one script call a request (see control.lua)."""

import time
from collections.abc import Callable

from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.storage.address import DAY
from wukong.storage.control.script import control_script
from wukong.storage.control.wire import decode, encode
from wukong.storage.counters import Counters
from wukong.storage.link import Link, Script

#: A wide task has a set of its own for the edges that have arrived.
_PROLONG = Script("""
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
for _, child in ipairs(redis.call('SMEMBERS', KEYS[5])) do redis.call('EXPIRE', KEYS[5] .. ':' .. child, ARGV[1]) end
""")
_KEYS = ("records", "values", "active", "executors", "wide", "notice")
_SLICE = 1.0  # seconds until a waiting client looks for itself: a notice goes to one waiter, and may be lost


class RedisControlStore:
    """A control store behind a link.

    All keys of a shard have its job and number as hash tag, so they live on one node of a cluster.

    Parameters
    ----------
    link : Link
        The way to the server.
    shards : int
        Number of shards of each job.
    ttl : int
        Seconds that a job's records stay after it was opened, last swept, or prolonged.
    clock : callable, optional
        The time in seconds, for tests; by default the server's own.
    """

    def __init__(self, link: Link, shards: int = 1, ttl: int = DAY, clock: Callable[[], float] | None = None) -> None:
        self.shards = shards
        self.link = link
        self._ttl = b"%d" % ttl
        self._clock = clock
        self._script = control_script()

    @property
    def counters(self) -> Counters:
        """See `ControlStore`."""
        return self.link.counters

    def apply(self, job: str, shard: int, request: m.Request) -> m.Reply:
        """See `ControlStore`."""
        now = b"" if self._clock is None else repr(self._clock()).encode()
        return decode(request, self.link.evaluate(self._script, _keys(job, shard), encode(request), now, self._ttl))

    def wait(self, job: str, timeout: float) -> bool:
        """See `ControlStore`."""
        notice = _keys(job, 0)[-1]
        deadline = time.monotonic() + timeout
        while True:
            reply = self.apply(job, 0, m.Probe((m.CLIENT,)))
            if reply.status in (m.FAILED, m.CANCELLED):
                return True
            if reply.status == m.RUNNING and reply.body[0].state != states.WAITING:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            patience = min(left, _SLICE)
            self.link.call(notice, b"BLPOP", notice, b"%.3f" % max(patience, 0.001), patience=patience)

    def prolong(self, job: str) -> None:
        """Have all records of a job stay as long as if it had been opened now."""
        for shard in range(self.shards):
            self.link.evaluate(_PROLONG, _keys(job, shard), self._ttl)

    def close(self) -> None:
        """See `ControlStore`."""
        self.link.close()


def _keys(job: str, shard: int) -> tuple[bytes, ...]:
    return tuple(f"wk:{{{job}/{shard}}}:{name}".encode() for name in _KEYS)
