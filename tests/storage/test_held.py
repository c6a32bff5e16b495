"""What a store holds while a job runs is what is still needed: values go when the last that reads them is through."""

from typing import Any

import numpy as np
import pytest

import wukong
from tests import drivers
from wukong.storage.open import connect
from wukong.storage.values.redis import RedisValueStore

SIZE = 20_000


class Books:
    """Which values are in the store, and the most there were at a time."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.put = self.peak = 0

    def add(self, name: str) -> None:
        """Note a value, but not a part of the plan."""
        if "." in name:
            self.put += 1
            self.held.add(name)
            self.peak = max(self.peak, len(self.held))


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    books = Books()
    put, delete = RedisValueStore.put, RedisValueStore.delete

    def noted_put(self: RedisValueStore, name: str, frame: Any) -> None:
        put(self, name, frame)
        books.add(name)

    def noted_delete(self: RedisValueStore, names: Any) -> None:
        books.held -= set(names)
        delete(self, names)

    monkeypatch.setattr(RedisValueStore, "put", noted_put)
    monkeypatch.setattr(RedisValueStore, "delete", noted_delete)
    return books


def make(number: int) -> Any:
    return np.full(SIZE, number)


def chain(length: int) -> tuple[dict[str, Any], str, int]:
    """Each task reads the one before, and so does one beside it, whose value the next reads as well."""
    graph: dict[str, Any] = {"a0": (make, 1)}
    for i in range(1, length):
        graph[f"b{i}"] = (np.add, f"a{i - 1}", 1)
        graph[f"c{i}"] = (np.add, f"a{i - 1}", 1)
        graph[f"a{i}"] = (np.maximum, f"b{i}", f"c{i}")
    return graph, f"a{length - 1}", length


def tree(leaves: int) -> tuple[dict[str, Any], str, int]:
    """A sum, in pairs."""
    graph: dict[str, Any] = {f"0.{i}": (make, i) for i in range(leaves)}
    level, width = 0, leaves
    while width > 1:
        width //= 2
        for i in range(width):
            graph[f"{level + 1}.{i}"] = (np.add, f"{level}.{2 * i}", f"{level}.{2 * i + 1}")
        level += 1
    return graph, f"{level}.0", leaves * (leaves - 1) // 2


def test_of_a_long_chain_only_the_links_at_work_are_held(tcp_url: str, books: Books) -> None:
    graph, key, expected = chain(40)
    with drivers.over(tcp_url, 2, drivers.HASTY) as get:
        assert (get(graph, key) == expected).all()
    assert books.put > 40
    assert books.peak <= 8, (books.put, books.peak)
    assert drivers.keys_of(tcp_url) == set()


def test_of_a_tree_no_value_is_held_whose_sum_is_there(tcp_url: str, books: Books) -> None:
    graph, key, expected = tree(64)
    with drivers.over(tcp_url, 2, drivers.HASTY) as get:
        assert (get(graph, key) == expected).all()
    assert books.put > 16
    # Two for each level, and what those at work have just made: far fewer than leaves, whatever the order.
    assert books.peak <= 24, (books.put, books.peak)
    # The result, which goes with the job.
    assert len(books.held) == 1
    assert drivers.keys_of(tcp_url) == set()


def held(url: str) -> int:
    """Return how many values there are in a server now, parts of plans aside."""
    link = connect(url)
    keys = [key for key in drivers.keys_of(url) if key.endswith(b"/v0}:values")]
    count = sum(b"." in bytes(name) for key in keys for name in link.call(key, b"HKEYS", key))
    link.close()
    return count


#: Of the test below, whose functions are in this process.
SEEN: list[int] = []


def counted(url: str, number: int, left: Any, right: Any) -> Any:
    """Count what there is; half way, have the server forget everything."""
    SEEN.append(held(url))
    if number == 20 and len(SEEN) == 20:
        link = connect(url)
        link.call(b"", b"FLUSHALL")
        link.close()
    return np.maximum(left, right)


def test_no_more_is_held_after_the_store_has_forgotten_everything(tcp_url: str) -> None:
    SEEN.clear()
    graph, key, expected = chain(40)
    for i in range(1, 40):
        graph[f"a{i}"] = (counted, tcp_url, i, f"b{i}", f"c{i}")
    with drivers.over(tcp_url, 2, drivers.HASTY) as get:
        assert (get(graph, key) == expected).all()
    run = wukong.last_run()
    assert run is not None
    assert any("it lost data" in reason for reason in run.reasons)
    assert len(SEEN) >= 39
    assert max(SEEN) <= 8, SEEN
    assert drivers.keys_of(tcp_url) == set()
