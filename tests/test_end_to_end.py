"""One contract for every way to run a graph: what Dask's synchronous scheduler gives, and nothing left behind."""

import contextlib
import math
import time
from collections.abc import Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from dask.local import get_sync
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wukong
from tests import drivers
from tests.graphs import Case, cases, end_of
from wukong.cost import IN_PROCESS, PROCESSES
from wukong.executor import core
from wukong.executor.context import Tally

pytestmark = pytest.mark.timeout(120)

#: The store each driver is asked over, and how it runs there.
IN_MEMORY = {
    "inline": lambda: contextlib.nullcontext(lambda graph, keys: wukong.get(graph, keys, granules="inline")),
    "auto": lambda: contextlib.nullcontext(lambda graph, keys: wukong.get(graph, keys, granules="auto")),
    "2 threads": lambda: drivers.in_process(2),
    "3 threads": lambda: drivers.in_process(3),
    "3 restless threads": lambda: drivers.in_process(3, drivers.RESTLESS),
}
#: With how many workers, and at which costs, it runs over a store.
OVER_A_STORE = {
    "1 worker": (1, None),
    "2 workers": (2, None),
    "1 worker, values held": (1, drivers.HEAVY),
    "3 workers, values held": (3, drivers.HEAVY),
    "3 workers, children kept": (3, drivers.CLUSTERED),
    "3 workers, values written": (3, drivers.HASTY),
}

#: With how many processes, and at which costs.
IN_PROCESSES = {
    "1 process": (1, PROCESSES),
    "2 processes": (2, PROCESSES),
    "3 restless processes": (3, drivers.RESTLESS),
    "2 processes, values held": (2, drivers.HEAVY),
    "2 processes, children kept": (2, drivers.CLUSTERED),
    "3 processes, values written": (3, drivers.HASTY),
}

some = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
few = settings(some, max_examples=20)


@contextlib.contextmanager
def leaving_nothing(url: str | None = None) -> Iterator[None]:
    """Check that what runs inside leaves no job on the board, and no key in the store."""
    before = drivers.keys_of(url) if url else set()
    yield
    drivers.until(drivers.idle, "the crew is idle")
    assert not url or drivers.keys_of(url) == before


def check(case: Case, get: Any, url: str | None = None) -> None:
    with leaving_nothing(url):
        end = end_of(get, case.graph, case.keys)
    assert end in case.ends or end in map(travelled, case.ends)


def travelled(end: tuple[str, ...]) -> tuple[str, ...]:
    """How a run ends whose error could not leave the process it was raised in."""
    if "OddError" not in end:
        return end
    _, kind, text = end
    said = f"a task raised tests.graphs.{kind}: {text}; the exception itself cannot travel"
    return "raises", "TaskFailed", said


@pytest.mark.parametrize("driver", IN_MEMORY)
@some
@given(case=cases())
def test_a_graph_ends_as_under_dask(driver: str, case: Case) -> None:
    with IN_MEMORY[driver]() as get:
        check(case, get)


@pytest.mark.parametrize("costs", [IN_PROCESS, drivers.RESTLESS], ids=["as measured", "restless"])
@some
@given(case=cases(), at=st.integers(0, 13), workers=st.integers(2, 3))
def test_a_walk_taken_over_at_any_task_ends_as_under_dask(costs: Any, case: Case, at: int, workers: int) -> None:
    with drivers.taken_over(at, workers, costs) as get:
        check(case, get)


@pytest.mark.parametrize("way", OVER_A_STORE)
@few
@given(case=cases())
def test_a_graph_ends_as_under_dask_over_every_store(server_url: str, way: str, case: Case) -> None:
    with drivers.over(server_url, *OVER_A_STORE[way]) as get:
        check(case, get, server_url)


@pytest.mark.parametrize("way", IN_PROCESSES)
@few
@given(case=cases())
def test_a_graph_ends_as_under_dask_in_processes(way: str, case: Case) -> None:
    with drivers.in_processes(*IN_PROCESSES[way]) as get:
        check(case, get)


@pytest.mark.parametrize("way", IN_PROCESSES)
@few
@given(case=cases())
def test_a_graph_ends_as_under_dask_in_processes_over_a_store(embedded_url: str, way: str, case: Case) -> None:
    with drivers.in_processes(*IN_PROCESSES[way], embedded_url) as get:
        check(case, get, embedded_url)


@pytest.mark.parametrize("costs", [PROCESSES, drivers.RESTLESS, drivers.HEAVY], ids=["as measured", "restless", "held"])
@few
@given(case=cases(), seed=st.integers(0, 1000), workers=st.integers(2, 3))
def test_a_graph_ends_as_under_dask_in_threads_and_processes_together(
    costs: Any, case: Case, seed: int, workers: int
) -> None:
    with drivers.mixed(seed, workers, costs) as get:
        check(case, get)


def mix(salt: int, *parts: Any) -> Any:
    """An array that depends on every part of every argument; some are long, and some take a while."""
    random = Random(salt)
    if random.random() < 0.1:
        time.sleep(0.002)
    total = float(salt) + sum((i + 1) * float(np.sum(part)) for i, part in enumerate(parts))
    return np.full(random.choice([1, 1, 10, 20_000]), math.fmod(total, 1e6))


def layered(seed: int, tasks: int) -> tuple[dict[str, Any], list[str]]:
    """A random graph of which each task reads some of those a little before it, and some far ones."""
    random = Random(seed)
    graph: dict[str, Any] = {}
    for number in range(tasks):
        near = [f"t{p}" for p in range(max(0, number - random.choice([2, 8, 40])), number)]
        inputs = random.sample(near, min(len(near), random.choice([0, 1, 1, 2, 2, 3, 9])))
        graph[f"t{number}"] = (mix, number, *inputs)
    return graph, [f"t{tasks - 1}", *random.sample(list(graph), 3)]


def check_layered(seed: int, way: str, url: str | None) -> None:
    graph, keys = layered(seed, 150)
    driver = IN_MEMORY[way]() if url is None else drivers.over(url, *OVER_A_STORE[way])
    with driver as get, leaving_nothing(url):
        found = get(graph, keys)
    for one, other in zip(found, get_sync(graph, keys), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("way", IN_MEMORY)
@pytest.mark.parametrize("seed", range(2))
def test_larger_graphs_give_what_dask_gives(seed: int, way: str) -> None:
    check_layered(seed, way, None)


@pytest.mark.parametrize("way", OVER_A_STORE)
def test_larger_graphs_give_what_dask_gives_over_every_store(server_url: str, way: str) -> None:
    check_layered(2, way, server_url)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", IN_MEMORY)
def test_many_larger_graphs_give_what_dask_gives(way: str) -> None:
    for seed in range(100, 300):
        check_layered(seed, way, None)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", OVER_A_STORE)
def test_many_larger_graphs_give_what_dask_gives_over_every_store(server_url: str, way: str) -> None:
    for seed in range(100, 150):
        check_layered(seed, way, server_url)


def block(shape: int, number: int) -> Any:
    return np.random.default_rng(number).random((shape, shape))


def blocks(count: int, shape: int) -> dict[Any, Any]:
    """Layers of blocks of 8 bytes * shape**2; each is made of two of the layer before, and all are added up."""
    graph: dict[Any, Any] = {(0, i): (block, shape, i) for i in range(count)}
    for layer in range(1, 4):
        for i in range(count):
            graph[layer, i] = (np.dot, (layer - 1, i), (layer - 1, (i * 3 + layer) % count))
    graph["sum"] = (sum, [(3, i) for i in range(count)])
    return graph


@pytest.mark.parametrize("way", OVER_A_STORE)
def test_large_arrays_come_through_every_store(server_url: str, way: str) -> None:
    graph, keys = blocks(6, 300), ["sum", (2, 1)]
    wanted = get_sync(graph, keys)
    with drivers.over(server_url, *OVER_A_STORE[way]) as get, leaving_nothing(server_url):
        found = get(graph, keys)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize(
    ("costs", "does"), [(drivers.HEAVY, "held"), (drivers.HASTY, "writes")], ids=["held", "written"]
)
def test_values_are_held_and_written_by_these_costs(embedded_url: str, costs: Any, does: str) -> None:
    """Else the contract would not be about what it says."""
    tallies = []

    class Noted(Tally):
        def __init__(self, executors: int = 1) -> None:
            super().__init__(executors)
            tallies.append(self)

    with drivers.over(embedded_url, 2, costs) as get, patch.object(core, "Tally", Noted):
        get(blocks(4, 10), "sum")
    assert sum(getattr(tally, does) for tally in tallies)
    assert sum(tally.becomes for tally in tallies)
    assert sum(tally.invocations for tally in tallies)
