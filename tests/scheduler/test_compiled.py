"""One compute on the crew: what is left when it ends well, when it fails, and when its store does not answer."""

import contextlib
import operator
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import dask
import pytest

import wukong
from tests import drivers, servers
from wukong.cost import LOCAL_SERVER
from wukong.errors import CannotTravel, ConfigError, StoreUnavailable
from wukong.platforms.local import threads
from wukong.scheduler import stores
from wukong.storage.address import parse
from wukong.storage.link import Link
from wukong.storage.open import connect
from wukong.storage.server import EmbeddedServer

pytestmark = pytest.mark.timeout(60)

#: A graph in which two workers find something to do.
GRAPH: dict[str, Any] = {
    "a": (int, "3"),
    "b": (operator.add, "a", 1),
    "c": (operator.mul, "a", 2),
    "d": (max, "b", "c"),
}


#: What ran in this process.
ran: list[int] = []


def note(x: int) -> None:
    """Run, and say so; it travels by its name."""
    ran.append(x)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    drivers.until(drivers.idle, "the crew is idle")


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server of one test, to be ended by it."""
    with EmbeddedServer() as server:
        yield server
        for url in [url for url in stores._links if url.startswith(server.url)]:
            stores._links.pop(url)


def process_of(url: str) -> int:
    link = Link(parse(url))
    lines = bytes(link.call(b"", b"INFO", b"server")).decode().splitlines()
    link.close()
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("process_id"))


# --- a store that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_dies_in_the_middle_ends_the_job(server: EmbeddedServer, workers: int) -> None:
    process = process_of(server.url)
    graph = {**GRAPH, "c": (lambda x: os.kill(process, signal.SIGKILL) or x, "a")}
    with pytest.raises(StoreUnavailable, match=server.url):
        wukong.get(graph, "d", store=server.url + "?away=0.5", workers=workers)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_server_that_no_longer_answers_ends_the_job(server: EmbeddedServer, workers: int) -> None:
    process = process_of(server.url)
    url = server.url + "?timeout=0.5&away=0"
    stores._links[url] = connect(url), LOCAL_SERVER
    graph = {**GRAPH, "c": (lambda x: os.kill(process, signal.SIGSTOP) or x, "a")}
    try:
        with pytest.raises(StoreUnavailable, match="gave no answer"):
            wukong.get(graph, "d", store=url, workers=workers)
    finally:
        os.kill(process, signal.SIGCONT)


def test_a_server_that_died_between_two_jobs_is_told_of_and_leaves_nothing_on_the_board(server: EmbeddedServer) -> None:
    assert wukong.get(GRAPH, "d", store=server.url, workers=2) == 6
    server.close()
    with pytest.raises(StoreUnavailable):
        wukong.get(GRAPH, "d", store=server.url, workers=2)
    assert not threads.crew._board
    assert wukong.get(GRAPH, "d", granules="threads", workers=2) == 6


def test_an_embedded_server_that_died_is_started_again() -> None:
    assert wukong.get(GRAPH, "d", store="embedded", workers=2) == 6
    link, _ = stores._links["embedded"]
    os.kill(process_of(f"unix://{link.address.nodes[0][0]}"), signal.SIGKILL)
    drivers.until(lambda: link.server.ended, "the server is gone")
    assert wukong.get(GRAPH, "d", store="embedded", workers=2) == 6


@pytest.mark.soak
def test_a_node_of_a_cluster_that_dies_ends_the_job() -> None:
    with servers.cluster_of_three() as plain:
        url = plain + "?away=2"

        def end_one(x: int) -> int:
            link = Link(parse(plain.replace("redis+cluster", "redis")))
            with contextlib.suppress(Exception):
                link.call(b"", b"SHUTDOWN", b"NOSAVE")
            return x

        with pytest.raises(StoreUnavailable):
            wukong.get({**GRAPH, "c": (end_one, "a")}, "d", store=url, workers=2)
        stores._links.pop(url, None)


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("http://here", ConfigError, r"redis://"),
        ("redis://", ConfigError, "redis://"),
        ("unix:///nowhere/at/all", StoreUnavailable, "/nowhere/at/all"),
        ("redis://u:secret@127.0.0.1:1", StoreUnavailable, "127.0.0.1:1"),
        ("redis+cluster://127.0.0.1:1", StoreUnavailable, "127.0.0.1:1"),
    ],
)
def test_a_wrong_address_is_told_of_before_anything_runs(url: str, error: type[Exception], text: str) -> None:
    ran.clear()
    with pytest.raises(error, match=text) as failed:
        wukong.get({**GRAPH, "a": (note, 1)}, "d", store=url)
    assert "secret" not in str(failed.value)
    assert ran == []


def test_the_first_error_is_told_even_if_the_store_is_gone_when_the_job_is_cleared_away(server: EmbeddedServer) -> None:
    process = process_of(server.url)

    def fail(_: int) -> None:
        os.kill(process, signal.SIGKILL)
        raise ArithmeticError("first")

    url = server.url + "?away=0.5"
    with pytest.raises(ArithmeticError, match="first"):
        wukong.get({**GRAPH, "c": (fail, "a")}, "d", store=url, workers=1, granules="inline")


# --- what cannot travel -----------------------------------------------------------------------------------------------


class Unloadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> Any:
        return (operator.truediv, (1, 0))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_value_that_cannot_be_pickled_ends_the_job_and_names_its_task(embedded_url: str, workers: int) -> None:
    before = drivers.keys_of(embedded_url)
    graph = {**GRAPH, "c": (lambda _: {"guard": [threading.Lock()]}, "a"), "d": (lambda *_: 1, "b", "c")}
    with pytest.raises(CannotTravel, match=r"\['guard'\] -> \[0\] -> _thread.lock cannot be pickled") as failed:
        wukong.get(graph, "d", store=embedded_url, workers=workers)
    assert any("task 'c' failed" in note for note in failed.value.__notes__)
    drivers.until(lambda: drivers.keys_of(embedded_url) == before, "the store is as before")


def test_a_function_that_cannot_be_pickled_is_told_of_before_anything_runs(embedded_url: str) -> None:
    before = drivers.keys_of(embedded_url)
    lock = threading.Lock()
    ran.clear()
    graph = {**GRAPH, "a": (note, 1), "c": (lambda x: lock and x, "a")}
    with pytest.raises(CannotTravel, match="lock"):
        wukong.get(graph, "d", store=embedded_url, workers=2)
    assert ran == []
    assert drivers.keys_of(embedded_url) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_value_that_cannot_be_unpickled_ends_the_job(embedded_url: str, workers: int) -> None:
    before = drivers.keys_of(embedded_url)
    with drivers.over(embedded_url, workers, drivers.HASTY) as get, pytest.raises(ZeroDivisionError):
        get({**GRAPH, "e": (Unloadable,), "d": (lambda *_: 1, "b", "e", "c")}, ["d", "e"])
    drivers.until(lambda: drivers.keys_of(embedded_url) == before, "the store is as before")


def test_an_array_larger_than_a_request_comes_back_whole_and_writable(embedded_url: str) -> None:
    numpy = pytest.importorskip("numpy")
    with drivers.over(embedded_url, 2) as get:
        found = get({"a": (numpy.ones, 3_000_000), "b": (operator.add, "a", 1), "c": (operator.add, "a", "b")}, "c")
    found += 1
    assert found.sum() == 4 * 3_000_000


# --- many at once -----------------------------------------------------------------------------------------------------


def test_computing_in_tasks_over_the_same_store_never_blocks(embedded_url: str) -> None:
    before = drivers.keys_of(embedded_url)

    def tree(depth: int) -> int:
        if not depth:
            return 1
        graph = {**dict.fromkeys("ab", (tree, depth - 1)), "sum": (operator.add, "a", "b")}
        return int(wukong.get(graph, "sum", store=embedded_url, workers=2))

    assert tree(4) == 16
    drivers.until(lambda: drivers.keys_of(embedded_url) == before, "the store is as before")


def test_jobs_of_several_threads_share_a_store(server_url: str) -> None:
    before = drivers.keys_of(server_url)
    found: list[tuple[int, int]] = []

    def ask(number: int) -> None:
        graph = {**GRAPH, "a": (int, f"{number}")}
        found.extend((number, wukong.get(graph, "d", store=server_url, workers=2)) for _ in range(5))

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(2, 6)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(found) == [(number, 2 * number) for number in range(2, 6) for _ in range(5)]
    drivers.until(lambda: drivers.keys_of(server_url) == before, "the store is as before")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_an_embedded_server_of_its_own() -> None:
    assert wukong.get(GRAPH, "d", store="embedded", workers=2) == 6
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os._exit(wukong.get(GRAPH, "d", store="embedded", workers=2))
        finally:
            os._exit(98)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    assert wukong.get(GRAPH, "d", store="embedded", workers=2) == 6


# --- what is kept and what is told ------------------------------------------------------------------------------------


def test_values_known_before_are_used_over_every_store(server_url: str) -> None:
    numpy = pytest.importorskip("numpy")
    known = {"a": 3, "big": numpy.ones(200_000), "unused": object}
    graph = {**GRAPH, "e": (len, "big"), "f": (operator.add, "d", "e")}
    with drivers.over(server_url, 2, cache=known) as get:
        assert get(graph, ["f", "a", "e"]) == (200_006, 3, 200_000)


@pytest.mark.parametrize("options", [{"granules": "threads"}, {"store": "embedded_url"}, {}], ids=str)
def test_nothing_to_run_is_nothing_run(options: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if "store" in options:
        options = {"store": request.getfixturevalue(options["store"])}
    assert wukong.get(GRAPH, ["d"], workers=2, cache={"d": 5}, **options) == (5,)
    assert wukong.get({}, [], workers=2, **options) == ()


def test_what_puts_the_result_together_runs_on_the_client() -> None:
    where: list[str] = []

    def finalize(parts: list[int]) -> int:
        where.append(threading.current_thread().name)
        return sum(parts)

    graph = {**{f"x{i}": (int, f"{i}") for i in range(40)}, "finalize-1": (finalize, [f"x{i}" for i in range(40)])}
    for _ in range(5):
        assert wukong.get(graph, "finalize-1", granules="threads", workers=2) == 780
    assert where == [threading.current_thread().name] * 5


def test_what_puts_a_result_together_runs_once_even_if_the_walk_is_taken_over_in_it() -> None:
    ran: list[str] = []
    graph = {"a": (int,), **{f"finalize-{i}": (lambda _, i=i: ran.append(i) or i, "a") for i in range(5)}}
    with drivers.taken_over(1) as get:
        assert get(graph, [f"finalize-{i}" for i in range(5)]) == (0, 1, 2, 3, 4)
    assert sorted(ran) == [0, 1, 2, 3, 4]


def test_a_finaliser_that_fails_is_named() -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        wukong.get({**GRAPH, "finalize-1": (operator.truediv, "d", 0)}, "finalize-1", granules="threads", workers=2)
    assert failed.value.__notes__ == ["wukong: task 'finalize-1' failed"]


def test_every_task_is_started_become_or_invoked_once() -> None:
    leaves = 64
    graph: dict[Any, Any] = {(leaves, i): (int, f"{i}") for i in range(leaves)}
    width = leaves
    while width > 1:
        width //= 2
        graph |= {(width, i): (operator.add, (2 * width, 2 * i), (2 * width, 2 * i + 1)) for i in range(width)}
    assert wukong.get(graph, (1, 0), granules="threads", workers=3) == sum(range(leaves))
    run = wukong.last_run()
    assert run is not None
    assert run.tasks == 2 * leaves - 1
    assert run.becomes + run.invocations == leaves - 1
    assert 1 <= run.executors <= leaves + run.invocations
    assert run.round_trips > 0


def test_annotations_and_aliases_of_collections_survive(embedded_url: str) -> None:
    array = pytest.importorskip("dask.array").arange(1000, chunks=100)
    total = (array + array.T)[::7].sum()
    assert wukong.compute(total, total, store=embedded_url, workers=2) == dask.compute(total, total, scheduler="sync")
