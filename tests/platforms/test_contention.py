"""Threads that keep each other waiting are found out, those that sleep or let go of the interpreter are not."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from wukong.platforms.local import contention
from wukong.platforms.local.contention import Contention
from wukong.platforms.local.verdicts import Seen, Verdicts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's books are those of Linux")


@contextmanager
def at_work(*works: Callable[[], Any]) -> Iterator[dict[int | None, str]]:
    """Threads that do something again and again; what stands for each is the name of what it does."""
    over = threading.Event()

    def run(work: Callable[[], Any]) -> None:
        while not over.is_set():
            work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield {thread.ident: work.__name__ for thread, work in zip(threads, works, strict=True)}
    finally:
        over.set()
        for thread in threads:
            thread.join()


def read_and_count() -> None:
    """Lets go of the interpreter every fraction of a millisecond, and needs it all the time."""
    with open("/proc/self/stat", "rb") as file:
        text = file.read()
    for _ in range(20):
        sum(text)


def nap() -> None:
    time.sleep(1e-3)


def looks(at: dict[int | None, str], times: int) -> list[Any]:
    seen = Contention()
    found = []
    for _ in range(times):
        found.append(seen.look(at))
        time.sleep(0.03)
    return found


def test_functions_that_hold_the_interpreter_by_turns_keep_each_other_waiting() -> None:
    # Whether the machine has a processor to spare at this moment is not what is tried here.
    with patch.object(contention, "idle", time.perf_counter), at_work(read_and_count, read_and_count) as at:
        deadline = time.monotonic() + 60
        while "read_and_count" not in looks(at, 5):
            assert time.monotonic() < deadline


def test_where_no_processor_is_idle_nothing_is_told() -> None:
    with patch.object(contention, "idle", lambda: 0.0), at_work(read_and_count, read_and_count) as at:
        assert set(looks(at, 5)) == {None}


@pytest.mark.parametrize("works", [(nap, nap), (read_and_count,), (read_and_count, nap)])
def test_one_alone_those_that_sleep_and_different_ones_are_not_suspected(works: tuple[Callable[[], Any], ...]) -> None:
    with patch.object(contention, "idle", time.perf_counter), at_work(*works) as at:
        assert set(looks(at, 5)) == {None}


def test_a_thread_that_has_ended_is_no_evidence() -> None:
    ended = threading.Thread(target=nap)
    ended.start()
    ended.join()
    assert looks({ended.ident: "nap", threading.get_ident(): "nap"}, 2) == [None, None]


def test_three_sights_of_contention_overturn_what_naps_said() -> None:
    verdicts = Verdicts()
    for _ in range(3):
        verdicts.saw({"reads"}, Seen(0.0, True))
    assert verdicts.holds("reads") is False
    assert [verdicts.accuse("reads") for _ in range(4)] == [False, False, True, False]
    assert verdicts.holds("reads") is True
