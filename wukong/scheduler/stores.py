"""The stores of one job: opened once per process and URL, and how values are packed for them."""

import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from wukong import serialize
from wukong.cost import IN_PROCESS, LOCAL_SERVER, Costs
from wukong.errors import ConfigError, StoreForgot
from wukong.executor.effects import Framed, Packed
from wukong.plan.view import Fetch
from wukong.protocol import messages as m
from wukong.scheduler.left import Left
from wukong.storage import expiry
from wukong.storage.control.base import ControlStore
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.counters import Counters
from wukong.storage.resp import Buffer
from wukong.storage.values.base import ValueStore

if TYPE_CHECKING:
    from wukong.storage.link import Link
    from wukong.storage.spill import Spill

#: What a URL says for `spill` if values are to be refused instead.
_NOWHERE: Final = "no"
#: Shards of a job in a cluster: enough for the slots of a job to be spread over its nodes.
_CLUSTER_SHARDS = 8
#: Bytes of the largest value that rides with its record, however slow the store: a request may carry hundreds.
_LARGEST_INLINE = 256 * 1024


@dataclass(slots=True, weakref_slot=True, eq=False)
class Stores:
    """The stores of one job.

    Attributes
    ----------
    control, values : stores
        Where records and values live. `values` is None where every value rides with its record.
    costs : Costs
        What they cost.
    pack, unpack : callable
        Make a value ready to leave an executor, and undo that.
    counters : callable
        What the stores have been used for so far.
    name : str
        The store, for people.
    url : str, optional
        Where another process finds them; None if nowhere.
    generation : callable
        Returns a number that changes when the store may have forgotten something.
    prolong : callable
        Have what the job has there stay for another `ttl`.
    told : callable
        Returns what happened to values of the job, for people; nothing if nothing did.
    evicts : callable
        Returns by which policy the store removes what jobs still need when it is full; empty if it does not.
    """

    control: ControlStore
    values: ValueStore | None
    costs: Costs
    pack: Callable[[Any], Packed]
    unpack: Callable[[Any], Any]
    counters: Callable[[], Counters]
    name: str
    url: str | None = None
    generation: Callable[[], int] = int
    prolong: Callable[[], None] = lambda: None
    told: Callable[[], tuple[str, ...]] = tuple
    evicts: Callable[[], str] = str


def in_process() -> Stores:
    """Return stores in the memory of this process: values are the very objects, and nothing is copied."""
    control = MemoryControlStore(keeps_answers=False)
    return Stores(control, None, IN_PROCESS, _as_it_is, opened, lambda: control.counters, "memory")


def at(url: str, job: str, there: bool = False) -> Stores:
    """Return the stores of `job` at `url`.

    Parameters
    ----------
    url, job : str
        Where, and of which job.
    there : bool
        Whether the store is known to be there, so that it is waited for if it does not answer.

    Raises
    ------
    ConfigError
        If the URL is of no known form.
    StoreError
        If there is no server, or nobody answers.
    """
    from wukong.storage.control.redis import RedisControlStore
    from wukong.storage.link import ClusterLink
    from wukong.storage.values.disk import DiskValueStore
    from wukong.storage.values.redis import LIMIT, RedisValueStore
    from wukong.storage.values.tiered import Tier, TieredValueStore
    from wukong.travel import check_travels

    shared, costs = _link(url, there)
    # Of this job alone, whoever else uses the link meanwhile.
    link = shared.view()
    directory = _directory(link, there)
    ttl = link.address.ttl
    control = RedisControlStore(link, _CLUSTER_SHARDS if isinstance(link, ClusterLink) else 1, ttl)
    remote = RedisValueStore(link, job, ttl)
    tiers = [Tier("redis", remote, LIMIT)]
    disk = None if directory is None else DiskValueStore(directory, job)
    if disk is not None:
        # All executors are on this machine.
        tiers.append(Tier("disk", disk, sys.maxsize))
    values = TieredValueStore(tiers, costs)
    inline_limit = min(costs.inline_limit, _LARGEST_INLINE)

    def pack(value: Any) -> Packed:
        frame = check_travels(value, "the value of a task")
        if frame.nbytes <= inline_limit:
            return Packed(True, frame.nbytes, bytes(frame))
        return Packed(False, frame.nbytes, frame.parts)

    def prolong() -> None:
        control.prolong(job)
        remote.prolong()

    def told() -> tuple[str, ...]:
        sizes = disk.sizes if disk else ()
        what = f"store: {len(sizes)} values, {sum(sizes) / 1e6:.1f} MB, went to files in {directory}"
        return (f"{what}: it was full, or they were too large for it",) if sizes else ()

    opened = Stores(
        control,
        values,
        costs,
        pack,
        serialize.loads,
        lambda: link.counters,
        str(link.address),
        _shared(url, link, directory),
        lambda: link.generation,
        prolong,
        told,
        lambda: link.evicts,
    )
    if not there:
        expiry.expiry.put_off(opened, ttl)
    return opened


def _as_it_is(value: Any) -> Packed:
    # Only instances have a size: of a class, `nbytes` is the property itself.
    nbytes = getattr(value, "nbytes", 0)
    return Packed(True, nbytes if type(nbytes) is int else 0, value)


def opened(body: Any) -> Any:
    """Return the value that rode with a record in the client's memory: itself, or what a process made of it."""
    if type(body) is Left:
        return body.open()
    return serialize.loads(body.frame) if type(body) is Framed else body


def parts_of(job: str, values: ValueStore | None, publish: Callable[[], Any] | None = None) -> Fetch:
    """Return what fetches parts of the plan of a job from its value store; those that are lost, `publish` puts back."""
    assert values is not None, "plans are published where there is a store to keep them"

    def fetch(digests: list[str]) -> list[Buffer]:
        blobs = values.get(digests)
        if None in blobs and publish is not None:
            publish()
            blobs = values.get(digests)
        found = [blob for blob in blobs if blob is not None]
        if len(found) < len(digests):
            raise StoreForgot(f"the store has lost {len(digests) - len(found)} parts of the plan of job {job}")
        return found

    return fetch


def _shared(url: str, link: "Link", directory: str | None) -> str:
    """Return a URL that means the same store in another process, and the same directory beside it."""
    from wukong.storage.open import EmbeddedLink

    where, _, options = (link.server.url if isinstance(link, EmbeddedLink) else url).partition("?")
    return f"{where}?{urlencode({**dict(parse_qsl(options)), 'spill': directory or _NOWHERE})}"


def _directory(link: "Link", there: bool) -> str | None:
    """Return where values go that the store refuses: the client's directory, of which its workers are told."""
    base = link.address.spill
    if base == _NOWHERE or there:
        return base if base != _NOWHERE else None
    from wukong.storage.spill import Spill

    with _opening:
        known = _spills.get(base)
        # What cleans directories of temporary files may have taken it.
        if known is None or not os.path.isdir(known.path):
            try:
                _spills[base] = Spill(base)
            except OSError as error:
                if base is not None:
                    raise ConfigError(f"nothing can be spilled to {base}, as the store's URL says: {error}") from error
                return None
            if known is not None:
                known.close()
        return _spills[base].path


def shared_link(url: str) -> "Link":
    """Return the link that all jobs at `url` share in this process; it counts what all of them do."""
    return _link(url)[0]


_spills: "dict[str | None, Spill]" = {}
_links: dict[str, "tuple[Link, Costs]"] = {}
_opening = Lock()


def _link(url: str, there: bool = False) -> "tuple[Link, Costs]":
    """Return the link to `url`, opened at first use, and what a request over it costs."""
    with _opening:
        known = _links.get(url)
        if known is None or _ended(known[0]):
            from wukong.storage.open import connect

            link = connect(url)
            if there:
                link.expect()
            try:
                costs = LOCAL_SERVER.replace(round_trip=_round_trip(link))
            except BaseException:
                link.close()
                raise
            known = _links[url] = link, costs
        return known


def _ended(link: "Link") -> bool:
    """Whether this was the link to an embedded server that is gone, which nobody else would start again."""
    from wukong.storage.open import EmbeddedLink

    if not isinstance(link, EmbeddedLink) or not link.server.ended:
        return False
    link.close()
    return True


def _round_trip(link: "Link") -> float:
    """Measure one request, in seconds: the median of a few."""
    from wukong.storage.control.redis import RedisControlStore

    control = RedisControlStore(link)
    seconds = []
    for _ in range(7):
        began = perf_counter()
        control.apply("ping", 0, m.Probe())
        seconds.append(perf_counter() - began)
    return sorted(seconds)[3]


def close() -> None:
    """Close all links; embedded servers end, and what was spilled goes."""
    with _opening:
        for spill in _spills.values():
            spill.close()
        _spills.clear()
        for link, _ in _links.values():
            link.close()
        _links.clear()


def _forget() -> None:
    """Begin anew in a forked child: another thread of the parent may have held the lock."""
    global _opening
    _opening = Lock()
    _links.clear()
    for spill in _spills.values():
        spill.forget()
    _spills.clear()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
