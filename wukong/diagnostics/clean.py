"""``wukong clean``: shows what dead clients left, in a store and on this machine, and removes it. What lives stays."""

from collections.abc import Callable, Sequence
from typing import Final

from wukong.errors import ConfigError
from wukong.storage import leftovers, orphans, spill
from wukong.storage.address import parse
from wukong.storage.leftovers import Leftover
from wukong.storage.open import connect

#: Seconds after which a job that nobody has touched is taken for dead: far longer than leases and looks.
IDLE: Final = 3600.0

#: What may be removed: how much of what it is, and its removal.
Found = tuple[str, Callable[[], object]]


def clean(url: str | None, idle: float = IDLE, agreed: Callable[[str], bool] = lambda _: False) -> int:
    """List what there is at the store at `url`, and on this machine; remove what is dead, if that is `agreed`.

    Parameters
    ----------
    url : str or None
        The store; None to look at this machine only.
    idle : float
        Seconds that a job must not have been read or written, and none of its leases may go on.
    agreed : callable
        Asked once, with a question; only if there is anything to remove.

    Returns
    -------
    int
        What the shell gets: 1 if there was something to remove, and it was not.

    Raises
    ------
    ConfigError
        If there can be nothing at the store but what this process puts there.
    StoreError
        If the store does not answer.
    """
    if url == "embedded":
        raise ConfigError("an embedded store ends with its client, and all that is in it: there is nothing to clean")
    found = [] if url is None else _in_store(url, idle)
    found += _here(None if url is None else parse(url).spill)
    if not found:
        print("Nothing to remove.")
        return 0
    what = "; ".join(text for text, _ in found)
    if not agreed(f"Remove {what}?"):
        print("Nothing was removed.")
        return 1
    for _, remove in found:
        remove()
    print(f"Removed {what}.")
    return 0


def _in_store(url: str, idle: float) -> list[Found]:
    link = connect(url)
    try:
        everything = leftovers.find(link)
    finally:
        link.close()
    dead = [left for left in everything if left.idle >= idle and not left.leased]
    print(_table(everything, dead))
    if not dead:
        print(f"No job has been idle for {_time(idle)}.")
        return []
    size = f"{sum(left.nbytes for left in dead):,} bytes"

    def remove() -> None:
        # A link opens again what it needs.
        try:
            for left in dead:
                leftovers.remove(link, left)
        finally:
            link.close()

    return [(f"{sum(len(left.keys) for left in dead)} keys of {len(dead)} jobs, {size}", remove)]


def _here(base: str | None) -> list[Found]:
    """Return what dead clients left on this machine: values that were spilled, and servers without a guard."""
    found: list[Found] = []
    for dead in spill.find(None if base == "no" else base):
        print(f"{dead.path}: {dead.files} values that a dead client spilled, {dead.nbytes:,} bytes")
        found.append((f"{dead.path}", lambda dead=dead: spill.remove(dead)))  # type: ignore[misc]
    for orphan in orphans.find():
        what = f"a server without its client, process {orphan.pid}" if orphan.pid else "the socket of a dead server"
        print(f"{orphan.directory}: {what}")
        found.append((f"{orphan.directory}", lambda orphan=orphan: orphans.remove(orphan)))  # type: ignore[misc]
    return found


def _table(everything: Sequence[Leftover], dead: Sequence[Leftover]) -> str:
    if not everything:
        return "No job has anything in this store."
    lines = [f"{'job':<20}{'keys':>6}{'bytes':>14}{'opened':>10}{'touched':>10}  {'':<6}"]
    for left in everything:
        state = "dead" if left in dead else "leased" if left.leased else "recent"
        lines.append(
            f"{left.job:<20}{len(left.keys):>6}{left.nbytes:>14,}{_time(left.age):>10}{_time(left.idle):>10}  {state}"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
