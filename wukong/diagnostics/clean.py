"""``wukong clean``: shows what jobs left in a store, and removes it. A job that anybody is at work on stays."""

from collections.abc import Callable, Sequence
from typing import Final

from wukong.errors import ConfigError
from wukong.storage.leftovers import Leftover, find, remove
from wukong.storage.open import connect

#: Seconds after which a job that nobody has touched is taken for dead: far longer than leases and looks.
IDLE: Final = 3600.0


def clean(url: str, idle: float = IDLE, agreed: Callable[[str], bool] = lambda _: False) -> int:
    """List what jobs have in the store at `url`; remove what is dead, if that is `agreed`; return what the shell gets.

    Parameters
    ----------
    url : str
        The store.
    idle : float
        Seconds that a job must not have been read or written, and none of its leases may go on.
    agreed : callable
        Asked once, with a question; only if there is anything to remove.

    Raises
    ------
    ConfigError
        If there can be nothing at the store but what this process puts there.
    StoreError
        If the store does not answer.
    """
    if url == "embedded":
        raise ConfigError("an embedded store ends with its client, and all that is in it: there is nothing to clean")
    link = connect(url)
    try:
        everything = find(link)
        dead = [left for left in everything if left.idle >= idle and not left.leased]
        print(_table(everything, dead))
        if not dead:
            print(f"Nothing to remove: no job has been idle for {_time(idle)}.")
            return 0
        what = f"{sum(len(left.keys) for left in dead)} keys of {len(dead)} jobs, {_size(dead)}"
        if not agreed(f"Remove {what}?"):
            print("Nothing was removed.")
            return 1
        removed = sum(remove(link, left) for left in dead)
        print(f"Removed {removed} keys of {len(dead)} jobs, {_size(dead)}.")
        return 0
    finally:
        link.close()


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


def _size(dead: Sequence[Leftover]) -> str:
    return f"{sum(left.nbytes for left in dead):,} bytes"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
