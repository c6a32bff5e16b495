"""Jobs for stores to fail in the middle of, and the counts of what becomes of them."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import wukong
from tests import drivers
from tests.faults.servers import Server
from wukong.errors import WukongError
from wukong.scheduler import stores as links
from wukong.storage import leftovers
from wukong.storage.open import connect

#: How long links of these jobs wait for an answer, and for a store that is away.
WAITS = "?timeout=2&away=8"
#: Seconds after which a job is taken to hang: far beyond what its link may wait.
HANGS = 60.0


@dataclass
class Row:
    """What came of one kind of fault."""

    fault: str
    injected: int = 0
    right: int = 0
    errors: int = 0
    wrong: int = 0
    hangs: int = 0
    leftovers: int = 0
    slowest: float = 0.0
    last: str = ""
    said: list[str] = field(default_factory=list)

    def add(self, other: "Row") -> None:
        """Add the counts of another."""
        for name in ("injected", "right", "errors", "wrong", "hangs", "leftovers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest = max(self.slowest, other.slowest)
        self.last = other.last or self.last


def make(number: int, size: int, seconds: float) -> Any:
    """Make an array, and take a moment for it."""
    time.sleep(seconds)
    return np.full(size, number, dtype=np.int64)


def add(seconds: float, *arrays: Any) -> Any:
    """Add arrays, and take a moment for it."""
    time.sleep(seconds)
    return sum(arrays)


def graph(seed: int, leaves: int = 24, size: int = 40_000, seconds: float = 0.004) -> tuple[dict[str, Any], str, int]:
    """Return a random graph of arrays, half of them too large to ride with records; its output; and what that holds."""
    dice = random.Random(seed)
    tasks: dict[str, Any] = {}
    value: dict[str, int] = {}
    for i in range(leaves):
        tasks[f"leaf{i}"] = (make, i, size, seconds)
        value[f"leaf{i}"] = i
    open_ends = list(value)
    while len(open_ends) > 1:
        width = min(len(open_ends), dice.choice((2, 3)))
        inputs = [open_ends.pop(dice.randrange(len(open_ends))) for _ in range(width)]
        if dice.random() < 0.3:
            inputs.append(dice.choice(list(value)))
        inputs = list(dict.fromkeys(inputs))
        name = f"sum{len(tasks)}"
        tasks[name] = (add, seconds, *inputs)
        value[name] = sum(value[each] for each in inputs)
        open_ends.append(name)
    return tasks, open_ends[0], value[open_ends[0]]


def run(row: Row, url: str, seed: int, inject: Callable[[], Any], wait: float, granules: str, **of: Any) -> None:
    """Run one job, do something harmful after a while, and note what became of it."""
    tasks, output, expected = graph(seed, **of)
    ended = threading.Event()
    struck: list[bool] = []
    outcome: list[Any] = []

    def strike() -> None:
        if not ended.wait(wait):
            inject()
            struck.append(True)

    def compute() -> None:
        try:
            found = wukong.get(tasks, output, store=url, granules=granules, workers=2)
            outcome.append(bool((np.asarray(found) == expected).all()))
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.set()

    began = time.monotonic()
    threads = [threading.Thread(target=each, daemon=True) for each in (compute, strike)]
    for thread in threads:
        thread.start()
    threads[0].join(HANGS)
    row.slowest = max(row.slowest, time.monotonic() - began)
    threads[1].join(HANGS)
    row.injected += len(struck)
    if not outcome:
        row.hangs += 1
    elif isinstance(outcome[0], WukongError):
        row.errors += 1
        row.last = f"{type(outcome[0]).__name__}: {outcome[0]}"
    elif outcome[0] is True:
        row.right += 1
    else:
        row.wrong += 1
        row.last = repr(outcome[0])
    forget(url)


def forget(url: str) -> None:
    """Close the link of a job that is over, so that the next one begins with a new one."""
    known = links._links.pop(url, None)
    if known is not None:
        known[0].close()


def settle(row: Row, keys: Callable[[], set[bytes]]) -> None:
    """Note what is left in a store once those who were still at work have noticed the end."""
    try:
        drivers.until(lambda: not keys(), "the store is empty", 5.0)
    except AssertionError:
        row.leftovers += len(keys())


def clean(row: Row, server: Server) -> None:
    """Note what is left after `wukong clean`: a store that answers nobody keeps what it has until then."""
    # What was sent before it fell silent may still be carried out.
    time.sleep(0.2)
    link = connect(server.url)
    for left in leftovers.find(link):
        leftovers.remove(link, left)
    link.close()
    settle(row, server.content)
