"""What jobs have in a Redis or Valkey store: which, how much, and since when nobody has touched it. And its removal.

Every key of a job begins with ``wk:{job/``. Not the end of a job that goes well, which removes its own keys; this is
for those whose client was killed, or whose store did not let them go.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgpack import Unpacker

from wukong.storage.link import Link, Node
from wukong.storage.resp import ReplyError

_PREFIX = b"wk:{"
_AT_ONCE = b"500"


@dataclass
class Leftover:
    """What one job has in a store.

    Attributes
    ----------
    job : str
        Its name.
    keys : list of bytes
        Its keys.
    nbytes : int
        Memory they take at the server.
    idle : float
        Seconds since anybody read or wrote any of it.
    age : float
        Seconds since it was opened, or last looked after, if its `ttl` is that of the link; 0 if nobody knows.
    leased : bool
        Whether an executor may still be at work.
    """

    job: str
    keys: list[bytes] = field(default_factory=list)
    nbytes: int = 0
    idle: float = float("inf")
    age: float = 0.0
    leased: bool = False


def find(link: Link) -> list[Leftover]:
    """Return what every job has in the store, the one idle for longest first. Reads; nobody's lease is prolonged.

    Raises
    ------
    StoreError
        If the store does not answer, or does not say.
    """
    found: dict[str, Leftover] = {}
    for node in link.primaries():
        untouched = _without_touching(link, node)
        for key in _keys(link, node):
            job = key[len(_PREFIX) :].partition(b"/")[0].decode(errors="replace")
            left = found.setdefault(job, Leftover(job))
            _look(link, key, left)
            if untouched and key.endswith(b":executors"):
                left.leased = left.leased or _is_leased(link, key)
    return sorted(found.values(), key=lambda left: -left.idle)


def remove(link: Link, left: Leftover) -> int:
    """Remove what a job has; return how many keys were still there."""
    return sum(int(link.call(key, b"UNLINK", key)) for key in left.keys)


def _keys(link: Link, node: Node) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, keys = link.call_node(node, b"SCAN", cursor, b"MATCH", _PREFIX + b"*", b"COUNT", _AT_ONCE)
        yield from map(bytes, keys)
        if bytes(cursor) == b"0":
            return


def _without_touching(link: Link, node: Node) -> bool:
    """Have reads over this thread's connection not count as use, if the server can do that: Redis and Valkey 7.2."""
    try:
        link.call_node(node, b"CLIENT", b"NO-TOUCH", b"ON")
    except ReplyError:
        return False
    return True


def _look(link: Link, key: bytes, left: Leftover) -> None:
    left.keys.append(key)
    # Asking for the memory, or the expiry, of a key does not count as use; reading it does.
    left.idle = min(left.idle, _figure(link, key, b"OBJECT", b"IDLETIME", key))
    left.nbytes += int(_figure(link, key, b"MEMORY", b"USAGE", key))
    expires = _figure(link, key, b"TTL", key)
    if expires > 0:
        left.age = max(left.age, link.address.ttl - expires)


def _figure(link: Link, key: bytes, *command: bytes) -> float:
    """Return a number that the server knows of a key; 0 if it is gone meanwhile, or the server does not tell."""
    try:
        return float(link.call(key, *command) or 0)
    except ReplyError:
        return 0.0


def _is_leased(link: Link, key: bytes) -> bool:
    """Whether an executor's lease goes on, by the clock of the server."""
    seconds, micros = link.call(key, b"TIME")
    now = float(seconds) + float(micros) / 1e6
    entries = link.call(key, b"HGETALL", key)
    for name, packed in zip(entries[::2], entries[1::2], strict=True):
        if name and not bytes(name).startswith(b"=") and _deadline(bytes(packed)) > now:
            return True
    return False


def _deadline(packed: bytes) -> float:
    # Sequence number and deadline, one after the other.
    unpacker = Unpacker(strict_map_key=False)
    unpacker.feed(packed)
    return float(list(unpacker)[-1])
