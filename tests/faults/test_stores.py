"""Jobs over stores that fail: right, or a typed error in bounded time, and nothing left. The long runs are a soak."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wukong
from tests import drivers
from tests.faults import proxy, stores
from tests.faults.stores import WAITS, Row, Server
from wukong.errors import StoreForgot, StoreFull, StoreUnavailable, ValueTooLarge
from wukong.platforms.local import threads
from wukong.scheduler import company, keeping
from wukong.scheduler import stores as links
from wukong.scheduler.keeping import EPOCHS

pytestmark = pytest.mark.timeout(110)

BOTH = pytest.mark.parametrize("granules", ["threads", "processes"])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server
        for more in ("", "&spill=no"):
            stores.forget(server.url + WAITS + more)
        drivers.until(drivers.idle, "the crew is idle")


def holds(row: Row) -> None:
    assert (row.wrong, row.hangs, row.leftovers) == (0, 0, 0), row
    assert row.injected, row


def get(server: Server, graph: dict[str, Any], key: str, granules: str = "threads", more: str = "") -> Any:
    return wukong.get(graph, key, store=server.url + WAITS + more, granules=granules, workers=2)


# --- connections ------------------------------------------------------------------------------------------------------


@BOTH
def test_connections_may_be_cut_delayed_and_half_closed_at_any_time(granules: str) -> None:
    for row in stores.connections(1, 3, granules, "?timeout=0.5&away=8"):
        holds(row)
        assert row.right == 1, row


def test_a_connection_may_be_cut_at_any_request() -> None:
    for row in stores.every_request(range(1, 12)):
        holds(row)
        assert row.errors == 0, row


def test_connections_with_tls_may_be_cut_delayed_and_half_closed_at_any_time() -> None:
    for row in stores.encrypted(1, 3):
        assert (row.right, row.wrong, row.hangs, row.leftovers) == (1, 0, 0, 0), row


# --- restarts ---------------------------------------------------------------------------------------------------------


@BOTH
def test_a_server_may_be_killed_and_started_again_with_its_data_with_none_and_with_old_data(granules: str) -> None:
    for row in stores.restarts(1, 0, granules):
        holds(row)
        assert row.right == 1, row


@BOTH
def test_a_job_whose_results_are_lost_when_they_are_collected_makes_them_again(
    server: Server, granules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = wukong.scheduler.launch.Client.collect
    lose = [b"FLUSHALL"]

    def after_a_loss(self: Any, *args: Any) -> Any:
        if lose:
            server.ask(lose.pop())
        return collect(self, *args)

    monkeypatch.setattr(wukong.scheduler.launch.Client, "collect", after_a_loss)
    found = get(server, {"a": (np.arange, 50_000), "b": (np.add, "a", 1)}, "b", granules)
    np.testing.assert_array_equal(found, np.arange(50_000) + 1)
    run = wukong.last_run()
    assert run is not None
    assert any("it lost data, and the job was opened again, 1 times" in reason for reason in run.reasons)
    assert server.content() == set()


def test_a_value_that_the_store_lost_alone_is_made_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    collect = wukong.scheduler.launch.Client.collect
    lose = [True]

    def after_a_loss(self: Any, *args: Any) -> Any:
        if lose:
            lose.clear()
            (values,) = [key for key in server.content() if b"/v0}" in key]
            server.ask(b"DEL", values)
        return collect(self, *args)

    monkeypatch.setattr(wukong.scheduler.launch.Client, "collect", after_a_loss)
    found = get(server, {"a": (np.arange, 100_000), "b": (np.add, "a", 1)}, "b")
    assert not lose
    np.testing.assert_array_equal(found, np.arange(100_000) + 1)


def test_a_store_that_forgets_again_and_again_is_an_error_that_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect = wukong.scheduler.launch.Client.collect

    def after_a_loss(self: Any, *args: Any) -> Any:
        server.ask(b"FLUSHALL")
        return collect(self, *args)

    monkeypatch.setattr(wukong.scheduler.launch.Client, "collect", after_a_loss)
    with pytest.raises(StoreForgot, match=f"opened again {EPOCHS} times already"):
        get(server, {"a": (int, "1"), "b": (abs, "a")}, "b")
    assert server.content() == set()


def test_a_job_that_stalls_though_its_store_forgot_nothing_is_not_opened_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads.Crew, "work", lambda *_: (_ for _ in ()).throw(keeping.JobStalled("no reason")))
    with pytest.raises(keeping.JobStalled, match="no reason"):
        get(server, {"a": (int, "1"), "b": (abs, "a")}, "b")


def test_a_primary_that_falls_silent_may_go_on_after_its_replica_took_over() -> None:
    for row in stores.partition(1):
        holds(row)
        assert row.right == 1, row


def test_a_server_that_does_not_come_back_is_an_error_that_says_how_long_it_was_waited_for(server: Server) -> None:
    process = server.process.pid

    def end(x: int) -> int:
        os.kill(process, signal.SIGKILL)
        return x

    url = server.url + "?away=0.5"
    with pytest.raises(StoreUnavailable, match=r"gave no answer to \w+ for 0\.\d s: .*Is it running"):
        wukong.get({"a": (int, "1"), "b": (end, "a"), "c": (abs, "b")}, "c", store=url, workers=1)
    stores.forget(url)


def test_requests_wait_while_a_server_is_started_again(server: Server) -> None:
    link = stores.connect(server.url)
    link.call(b"", b"PING")
    before = link.generation
    server.kill()
    again = threading.Thread(target=lambda: (time.sleep(0.3), server.start()))
    again.start()
    assert link.call(b"", b"PING") == b"PONG"
    assert link.generation == before + 1
    again.join(20.0)
    link.close()


def test_a_connection_that_is_cut_is_no_reason_to_think_that_the_store_forgot(server: Server) -> None:
    with proxy.before(server.url, proxy.none) as (between, url):
        link = stores.connect(url)
        link.call(b"", b"PING")
        between.cut_all()
        assert link.call(b"", b"PING") == b"PONG"
        assert link.generation == 0
        link.close()


def test_an_executor_that_comes_late_and_misses_the_plan_leaves_none_in_the_store(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    companies: list[Any] = []
    publish = company.Company.publish
    monkeypatch.setattr(company.Company, "publish", lambda self: (companies.append(self), publish(self))[1])
    assert get(server, {"a": (int, "1"), "b": (abs, "a")}, "b") == 1
    companies[0].publish()
    assert server.content() == set()


# --- no room ----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_full_store_is_an_error_with_figures_and_keeps_nothing_of_the_job(server: Server, granules: str) -> None:
    server.ask(b"CONFIG", b"SET", b"maxmemory", b"4mb")
    server.ask(b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction")
    graph: dict[str, Any] = {f"a{i}": (np.full, 100_000, i) for i in range(20)}
    graph["all"] = (lambda *arrays: len(arrays), *graph)
    with pytest.raises(StoreFull, match=r"[Ii]t uses \d+ bytes of 4194304"):
        get(server, graph, "all", granules, "&spill=no")
    drivers.until(lambda: not server.content(), "the store is empty")


@BOTH
def test_values_that_a_store_has_no_room_for_go_to_disk_and_leave_it_with_the_job(
    server: Server, granules: str
) -> None:
    server.ask(b"CONFIG", b"SET", b"maxmemory", b"40mb")
    server.ask(b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction")
    graph: dict[str, Any] = {f"a{i}": (np.full, 100_000, i) for i in range(60)}
    graph["all"] = (lambda *arrays: sum(arrays), *graph)
    np.testing.assert_array_equal(get(server, graph, "all", granules), np.full(100_000, 1770))
    said = re.search(r"store: (\d+) values, (\d+)\.\d MB, went to files in (\S+): it was full", repr(wukong.last_run()))
    assert said
    count, megabytes, path = said.groups()
    # Of 60 values of 0.8 MB each, a server of 40 MB has no room for ten at least.
    assert 10 <= int(count) <= 60
    assert int(megabytes) == int(int(count) * 0.8)
    drivers.until(lambda: not server.content(), "the store is empty")
    spill = links._spills[None]
    assert path == spill.path
    drivers.until(lambda: not os.listdir(spill.path), "nothing is on disk")
    server.ask(b"CONFIG", b"SET", b"maxmemory", b"0")
    get(server, graph, "all", granules)
    assert "went to files" not in repr(wukong.last_run())


def test_a_value_that_neither_the_store_nor_the_disk_takes_is_an_error_that_says_so_of_both(
    server: Server, tmp_path: Path
) -> None:
    server.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1mb")
    more = f"&spill={tmp_path}"

    def lose(size: int) -> Any:
        (made,) = tmp_path.iterdir()
        made.rmdir()
        return np.arange(size)

    with pytest.raises(ValueTooLarge, match="takes at most 1048576") as failed:
        get(server, {"a": (int, "2000000"), "big": (lose, "a")}, "big", more=more)
    assert "nor was there room elsewhere" in str(failed.value.__notes__)
    assert "cannot be written to (No such file or directory; it is not there)" in str(failed.value.__notes__)
    assert server.content() == set()
    stores.forget(server.url + WAITS + more)


@BOTH
def test_a_value_larger_than_the_server_takes_goes_to_disk(server: Server, granules: str) -> None:
    server.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1mb")
    graph = {"a": (int, "2000000"), "big": (np.arange, "a"), "last": (lambda array: int(array[-1]), "big")}
    assert get(server, graph, "last", granules) == 1_999_999
    np.testing.assert_array_equal(get(server, graph, "big", granules), np.arange(2_000_000))
    assert server.content() == set()


def test_a_value_larger_than_the_server_takes_is_an_error_that_names_its_task(server: Server) -> None:
    server.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1mb")
    with pytest.raises(ValueTooLarge, match="takes at most 1048576") as failed:
        get(server, {"a": (int, "2000000"), "big": (np.arange, "a")}, "big", more="&spill=no")
    assert "it is the value of task 'big'" in str(failed.value.__notes__)
    assert server.content() == set()


def test_a_server_with_no_connection_left_is_waited_for_and_then_told_of() -> None:
    (row,) = stores.crowded(2, waits="?timeout=2&away=1")
    assert (row.right, row.errors, row.leftovers) == (1, 1, 0)
    assert "maxclients" in row.last


def test_a_silent_server_is_given_up_in_bounded_time() -> None:
    for row in stores.silence(1, waits="?timeout=0.5&away=1.5"):
        holds(row)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_all_faults_many_times() -> None:
    for row in stores.rows(10):
        holds(row)
