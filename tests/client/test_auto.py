"""granules="auto": which functions that are submitted move to processes, and which stay."""

import os
import threading
import time

import pytest

import wukong
from wukong.platforms.local.locks import shares
from wukong.scheduler import adaptive

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(not shares, reason="no process granules here")]


@pytest.fixture
def guilty(monkeypatch):
    """Every function is known to hold the interpreter; the naps that find out are tested elsewhere."""
    monkeypatch.setattr(adaptive.verdicts, "holds", lambda _: True)
    monkeypatch.setattr(adaptive.verdicts, "asks", lambda _: False)


def loop(*_):
    began = time.thread_time()
    while time.thread_time() - began < 0.02:
        pass
    return os.getpid()


def rest(seconds):
    time.sleep(seconds)
    return os.getpid()


def lazy(*_):
    time.sleep(0.02)
    return os.getpid()


def elsewhere(client, function, *args, most=30):
    """Whether calls of a function move, before the deadline."""
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        pids = client.gather([client.submit(function, *args) for _ in range(40)])
        if set(pids) - {os.getpid()}:
            return True
        if client.reasons:
            return False
    raise AssertionError("nothing was found out")


def test_a_loop_moves_once_it_is_seen_to_hold_the_interpreter(client):
    assert elsewhere(client, loop)
    assert client.reasons == {"loop": "processes: it holds the interpreter"}
    # All of them, from then on.
    assert os.getpid() not in client.gather(client.map(loop, range(4)))


def test_what_sleeps_never_moves(client):
    assert set(client.gather(client.map(rest, [0.02] * 60))) == {os.getpid()}
    assert client.reasons == {}


@pytest.mark.usefixtures("guilty")
def test_calls_that_might_change_what_they_are_given_stay(client):
    assert elsewhere(client, lazy)
    assert client.submit(lazy, [1]).result() == os.getpid()
    assert client.submit(lazy, (1, "text")).result() != os.getpid()
    assert client.submit(lazy, client.submit(list, "12")).result() != os.getpid()


@pytest.mark.usefixtures("guilty")
def test_functions_that_change_what_is_here_stay_and_it_is_said_why(client):
    seen = []

    def note(n):
        seen.append(n)
        return lazy()

    assert not elsewhere(client, note, 1)
    assert "the interpreter, but" in client.reasons[note.__qualname__]
    assert seen


@pytest.mark.usefixtures("guilty")
def test_what_cannot_travel_is_run_here(client):
    assert elsewhere(client, lazy)
    held = client.submit(threading.Lock)
    assert client.submit(lazy, held).result() == os.getpid()
    assert "cannot be pickled" in client.reasons["lazy"]
    assert client.submit(lazy).result() == os.getpid()


@pytest.mark.usefixtures("guilty")
def test_processes_are_not_started_for_little(client):
    assert client.gather(client.map(lazy, range(3))) == [os.getpid()] * 3
    assert not client._engine.processes.started


def test_nobody_watches_when_there_is_nothing_to_see(client):
    futures = client.map(rest, [0.01] * 100)
    client.cancel(futures[4:])
    wukong.wait(futures)
    deadline = time.monotonic() + 20
    while client._engine.auto._waiting or client._engine.auto._at_work:
        assert time.monotonic() < deadline
        time.sleep(0.001)
