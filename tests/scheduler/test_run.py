"""Who runs a compute: decided by the options, by how many tasks there are, and by how long they prove to be."""

import operator
import threading
from contextvars import ContextVar
from typing import Any

import dask
import numpy as np
import pytest

import wukong
from tests import drivers
from wukong.cost import IN_PROCESS
from wukong.errors import UnsupportedGraph
from wukong.events import Run
from wukong.scheduler import run

pytestmark = pytest.mark.timeout(30)

ALONE = "the client, alone"
GRAPH: dict[str, Any] = {"a": (int, "3"), "b": (operator.add, "a", 1), "c": (operator.mul, "a", 2)}
GRAPH["d"] = (max, "b", "c")


def figures(graph: dict[str, Any], keys: Any, **options: Any) -> Run:
    wukong.get(graph, keys, **options)
    found = wukong.last_run()
    assert found is not None
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"granules": "inline"},
        {"granules": "inline", "workers": 4},
        {"granules": "auto", "workers": 1},
        {"granules": "threads", "workers": 1},
    ],
    ids=str,
)
def test_short_tasks_and_single_workers_stay_with_the_client(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine that is busy with other things may make the shortest task long.
    monkeypatch.setattr(run, "IN_PROCESS", IN_PROCESS.replace(invoke=360.0))
    assert figures(GRAPH, "d", **options) == Run(4, wukong.last_run().seconds, 1, 3, where=ALONE)


def test_threads_are_used_as_asked() -> None:
    assert figures(GRAPH, "d", granules="threads", workers=3).where == "3 threads, store: memory"


def test_where_workers_are_not_given_dasks_configuration_is_asked() -> None:
    with dask.config.set(num_workers=3):
        assert figures(GRAPH, "d", granules="threads").where == "3 threads, store: memory"
        assert figures(GRAPH, "d", granules="threads", workers=2).where == "2 threads, store: memory"


def test_what_processes_ask_a_store_counts(embedded_url: str) -> None:
    graph = {f"abs-{n}": (abs, -n) for n in range(20)} | {"all": (sum, [f"abs-{n}" for n in range(20)])}
    found = figures(graph, "all", granules="processes", store=embedded_url, workers=2)
    # Each task is claimed and committed by an executor, or became one's.
    assert found.round_trips > found.executors
    assert found.bytes_received > found.executors


@pytest.mark.parametrize(("granules", "workers", "threads"), [("inline", 4, 1), ("auto", 3, 3), ("threads", 1, 1)])
def test_over_a_store_as_many_workers_run_as_are_asked_for(
    embedded_url: str, granules: str, workers: int, threads: int
) -> None:
    found = figures(GRAPH, "d", granules=granules, workers=workers, store=embedded_url)
    assert found.where == f"{threads} threads, store: {embedded_url}"
    assert found.round_trips > 0
    assert found.bytes_sent > 0
    assert found.bytes_received > 0


def long(*_: Any) -> str:
    """Long enough to be handed over, and where it ran."""
    threading.Event().wait(0.05)
    return threading.current_thread().name


def test_long_tasks_are_handed_over_and_short_walks_are_not() -> None:
    graph = {f"x{i}": (long, i) for i in range(12)}
    found = wukong.get(graph, list(graph), workers=2)
    assert len(set(found)) == 2
    assert wukong.last_run().where == "2 threads, store: memory"
    assert figures({"a": (long,), "b": (long, "a")}, "b", workers=2).where == ALONE


def test_figures_are_of_this_threads_last_compute_that_succeeded() -> None:
    figures(GRAPH, "d", granules="threads", workers=2)
    others: list[Run | None] = []

    def ask() -> None:
        others.append(wukong.last_run())
        others.append(figures(GRAPH, "b"))

    asker = threading.Thread(target=ask)
    asker.start()
    asker.join()
    with pytest.raises(ZeroDivisionError):
        wukong.get({"a": (operator.truediv, 1, 0)}, "a")
    assert others[0] is None
    assert others[1].tasks == 2
    assert wukong.last_run().tasks == 4


def test_a_compute_of_nothing_has_no_becomes() -> None:
    assert figures({}, [], granules="inline") == Run(0, wukong.last_run().seconds, 1, 0, where=ALONE)


@pytest.mark.parametrize("granules", ["inline", "threads", "auto"])
def test_values_known_before_are_not_computed_again(granules: str) -> None:
    options = {"granules": granules, "workers": 2}
    assert wukong.get(GRAPH, ["d", "a"], cache={"a": 10}, **options) == (20, 10)
    with dask.config.set(cache={"c": 100}):
        assert wukong.get(GRAPH, "d", **options) == 100


@pytest.mark.parametrize("granules", ["inline", "threads", "auto"])
def test_the_graph_and_the_cache_are_left_as_they_were(granules: str) -> None:
    graph, cache = dict(GRAPH), {"a": 10}
    wukong.get(graph, ["d", "b"], cache=cache, granules=granules, workers=2)
    assert graph == GRAPH
    assert cache == {"a": 10}


def test_looking_in_on_walks_ends_with_them() -> None:
    for _ in range(20):
        wukong.get(GRAPH, "d", workers=2)
    drivers.until(lambda: not run._lookout._relays, "the lookout has nothing to look in on")


def test_a_bags_groupby_through_the_disk_is_refused_before_anything_runs_where_values_are_copied():
    pytest.importorskip("partd")
    import dask.bag as db

    ran: list[int] = []
    groups = db.from_sequence(range(4), npartitions=2).map(ran.append).groupby(bool, shuffle="disk")
    with pytest.raises(UnsupportedGraph, match="groupby"):
        wukong.compute(groups, store="embedded")
    assert ran == []


@pytest.mark.parametrize("options", [{"granules": "threads", "workers": 2}, {"store": "embedded"}], ids=str)
def test_a_task_may_return_a_class_whose_instances_have_a_size(options):
    graph = {"a": (type, np.ones(1)), "b": (list, ["a"]), "c": (list, ["a"]), "d": (operator.add, "b", "c")}
    assert wukong.get(graph, "d", **options) == [np.ndarray, np.ndarray]


@pytest.mark.parametrize("granules", ["auto", "threads"])
def test_helpers_see_the_context_variables_of_who_asked(granules: str) -> None:
    asked = ContextVar("asked", default="")
    asked.set("by me")
    graph = {i: (lambda _: (asked.get(), long()), i + 0.5) for i in range(12)}
    found = wukong.get(graph, list(graph), granules=granules, workers=2)
    assert {seen for seen, _ in found} == {"by me"}
    assert len({thread for _, thread in found}) == 2
