"""What a link counts, of itself and of each view of it, and how long it waits."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import wukong
from wukong.errors import ConfigError, StoreUnavailable
from wukong.storage.address import parse
from wukong.storage.counters import Counters
from wukong.storage.open import connect
from wukong.storage.server import EmbeddedServer


@pytest.fixture
def link(server_url: str) -> Iterator[Any]:
    link = connect(server_url)
    yield link
    link.close()


def ping(link: Any, times: int = 1) -> None:
    for _ in range(times):
        link.call(b"", b"PING")


def in_a_thread(function: Callable[..., None], *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join(10.0)
    assert not thread.is_alive()


def test_a_view_counts_what_goes_through_it_and_the_link_counts_all(link: Any) -> None:
    ping(link, 2)
    one, other = link.view(), link.view()
    assert one.counters == Counters()
    ping(one, 3)
    in_a_thread(ping, other, 4)
    in_a_thread(ping, one)
    assert (one.counters.round_trips, other.counters.round_trips, link.counters.round_trips) == (4, 4, 10)
    # A PING of 14 bytes, and a PONG of 7.
    assert one.counters == Counters(4, 56, 28)
    assert link.counters == Counters(10, 140, 70)


def test_views_share_the_connections_of_their_link(link: Any) -> None:
    before = link.call(b"", b"CLIENT", b"ID")
    assert link.view().call(b"", b"CLIENT", b"ID") == before


def test_threads_that_come_and_go_do_not_make_a_link_grow(link: Any) -> None:
    for _ in range(50):
        in_a_thread(ping, link)
    assert link.counters.round_trips == 50
    # One that began before another ended may have a number of its own.
    assert len(link._tallies[0]) < 25


def test_a_job_counts_its_own_traffic_while_others_use_the_store(server_url: str) -> None:
    graph: dict[str, Any] = {f"x{i}": (str, i) for i in range(20)}
    graph["all"] = (len, list(graph))
    over, began = threading.Event(), threading.Event()

    def others() -> None:
        while not over.is_set():
            wukong.get({"big": (bytes, 100_000), "n": (len, "big")}, "n", store=server_url, workers=1)
            began.set()

    alone = []
    for _ in range(3):
        assert wukong.get(graph, "all", store=server_url, workers=1) == 20
        alone.append(wukong.last_run())
    thread = threading.Thread(target=others)
    thread.start()
    try:
        assert began.wait(30.0)
        assert wukong.get(graph, "all", store=server_url, workers=1) == 20
        run = wukong.last_run()
    finally:
        over.set()
        thread.join(30.0)
    assert run is not None
    # Durations decide how tasks are grouped, so counts differ a little from run to run.
    assert run.bytes_sent <= 2 * max(one.bytes_sent for one in alone if one is not None)
    assert run.round_trips <= 2 * max(one.round_trips for one in alone if one is not None)


def test_how_long_a_store_is_waited_for_is_part_of_its_address() -> None:
    address = parse("redis://host:1?timeout=0.5&away=60")
    assert (address.timeout, address.away) == (0.5, 60.0)
    assert (parse("redis://host").timeout, parse("redis://host").away) == (10.0, 30.0)
    for wrong in ("away=soon", "away=-1", "timeout=inf", "timeout=nan"):
        with pytest.raises(ConfigError, match="is not understood"):
            parse(f"redis://host?{wrong}")


def test_a_wrong_address_is_told_of_at_once_whatever_the_link_may_wait() -> None:
    link = connect("redis://127.0.0.1:1?away=1000")
    with pytest.raises(StoreUnavailable, match="Is it running"):
        link.call(b"", b"PING")
    link.close()


def test_once_a_request_has_waited_in_vain_others_do_not_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    with EmbeddedServer() as server:
        link = connect(server.url + "?away=0.1")
        ping(link)
        link.call(b"", b"CONFIG", b"SET", b"maxclients", b"1")
        monkeypatch.setattr("wukong.storage.link.time.sleep", pauses.append)
        paused = []

        def refused() -> None:
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="maxclients"):
                    link.call(b"", b"PING")
                paused.append(len(pauses))

        in_a_thread(refused)
        link.close()
    assert 0 < paused[0] == paused[1]
