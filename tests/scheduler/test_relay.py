"""Handing a walk over: whenever the lookout comes, and however the walk ends, it is carried on once or not at all."""

import contextlib
import os
import threading
import time
from typing import Any

import pytest

import wukong
from tests import drivers
from wukong.cost import IN_PROCESS
from wukong.executor.alone import Taken, walk
from wukong.platforms.local import threads
from wukong.scheduler import adaptive, run
from wukong.scheduler import relay as relays
from wukong.scheduler.dask.graphs import trace
from wukong.scheduler.dask.nodes import evaluate
from wukong.scheduler.relay import Lookout, Relay

pytestmark = pytest.mark.timeout(30)

#: Whatever has begun is worth handing over.
EAGER = IN_PROCESS.replace(invoke=0.0, task=0.0)
CHAIN = {"a": (int,), "b": (str, "a"), "c": (str, "b"), "d": (str, "c")}


def relay_of(graph: dict[str, Any], wanted: list[str], observer: Any = None) -> tuple[Any, dict[Any, Any], Relay]:
    """A walk and the relay of it, which takes over as soon as it looks."""
    tasks, values = trace(graph, wanted), {}
    return tasks, values, Relay(tasks, values, EAGER, 2, observer)


def fail() -> None:
    raise ValueError("it failed")


def test_a_walk_that_has_failed_is_not_taken_over() -> None:
    tasks, values, relay = relay_of({**CHAIN, "a": (fail,)}, ["d"])
    with pytest.raises(ValueError, match="it failed"), relay:
        walk(tasks, evaluate, values, None, relay.baton)
    assert not relay.look()
    assert not threads.crew._board


def test_a_walk_whose_thread_has_ended_is_not_taken_over() -> None:
    """Its clock went with it."""
    made: list[Relay] = []

    def ask() -> None:
        tasks, values, relay = relay_of({**CHAIN, "a": (fail,)}, ["d"])
        made.append(relay)
        with contextlib.suppress(ValueError), relay:
            walk(tasks, evaluate, values, None, relay.baton)

    asker = threading.Thread(target=ask)
    asker.start()
    asker.join()
    drivers.until(lambda: not os.path.exists(f"/proc/self/task/{asker.native_id}"), "the system has ended it too")
    assert not made[0].look()


def test_a_failure_while_the_lookout_launches_leaves_nothing_on_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling, failed = threading.Event(), threading.Event()

    class Slow(relays.Compiled):
        def __init__(self, *args: Any) -> None:
            compiling.set()
            assert failed.wait(10)
            super().__init__(*args)

    def fail_meanwhile() -> None:
        assert compiling.wait(10)
        threading.Timer(0.05, failed.set).start()
        raise ValueError("it failed")

    monkeypatch.setattr(relays, "Compiled", Slow)
    tasks, values, relay = relay_of({**CHAIN, "a": (fail_meanwhile,), "e": (int,), "f": (max, "d", "e")}, ["f"])

    def look() -> None:
        while relay.look():
            pass

    lookout = threading.Thread(target=look)
    lookout.start()
    with pytest.raises(ValueError, match="it failed"), relay:
        walk(tasks, evaluate, values, None, relay.baton)
    lookout.join()
    drivers.until(drivers.idle, "the crew is idle")


def test_a_failure_does_not_wait_for_the_lookout_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling, failed = threading.Event(), threading.Event()
    waited: list[bool] = []

    class Slow(relays.Compiled):
        def __init__(self, *args: Any) -> None:
            compiling.set()
            waited.append(failed.wait(10))
            super().__init__(*args)

        def start(self) -> None:
            raise AssertionError("a walk that is over was launched")

    def fail_meanwhile() -> None:
        assert compiling.wait(10)
        raise ValueError("it failed")

    monkeypatch.setattr(relays, "Compiled", Slow)
    tasks, values, relay = relay_of({**CHAIN, "a": (fail_meanwhile,)}, ["d"])
    lookout = threading.Thread(target=relay.look)
    relay.baton.append(0)
    lookout.start()
    with pytest.raises(ValueError, match="it failed"), relay:
        evaluate(tasks.nodes[0], values)
    failed.set()
    lookout.join()
    assert waited == [True]
    assert relay._error is None


@pytest.mark.parametrize("at", range(4))
def test_a_walk_is_taken_over_at_most_once_and_never_for_a_few_tasks(at: int) -> None:
    tasks, values, relay = relay_of(CHAIN, ["d"])
    looks: list[bool] = []

    def look_meanwhile(node: Any, known: dict[Any, Any]) -> Any:
        if relay.baton == [at]:
            looks.extend(relay.look() for _ in range(3))
        return evaluate(node, known)

    with relay:
        taken = walk(tasks, look_meanwhile, values, None, relay.baton)
        if at < 2:
            assert taken is not None
            assert taken.index == at
            relay.join(taken)
        else:
            assert taken is None
            assert looks == [False, False, False]
    assert values["d"] == "0"


def test_a_look_between_two_tasks_does_nothing() -> None:
    *_, relay = relay_of(CHAIN, ["d"])
    assert relay.look()
    assert relay.baton == []
    with relay:
        pass
    assert not relay.look()


def test_the_error_of_a_launch_comes_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(relays, "Compiled", refuse)
    *_, relay = relay_of(CHAIN, ["d"])
    relay.baton.append(0)
    assert not relay.look()
    with pytest.raises(MemoryError, match="no room"), relay:
        relay.join(Taken(0, 0))


def test_a_lookout_comes_for_one_relay_after_another() -> None:
    lookout = Lookout(1e-4)
    for _ in range(3):
        tasks, values, relay = relay_of(CHAIN, ["d"])
        held = threading.Event()

        def evaluate_slowly(node: Any, known: dict[Any, Any], relay: Any = relay, held: Any = held) -> Any:
            drivers.until(lambda: held.is_set() or not relay.baton, "the lookout takes the baton", 10)
            held.set()
            return evaluate(node, known)

        with relay:
            lookout.watch(relay)
            taken = walk(tasks, evaluate_slowly, values, None, relay.baton)
            assert taken is not None
            relay.join(taken)
        assert values["d"] == "0"
    drivers.until(drivers.idle, "the crew is idle")


def test_a_look_that_raises_leaves_its_relay_alone_and_the_lookout_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Nameless:
        """Asked for anything that it does not have, it raises what nobody expects."""

        def __call__(self, x: int) -> int:
            time.sleep(0.05)
            return x

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"there is no {name}")

    monkeypatch.setattr(run, "_lookout", Lookout(1e-3))
    alone = {("a", i): (Nameless(), i) for i in range(9)}
    assert wukong.get(alone, list(alone), granules="auto", workers=2) == tuple(range(9))
    assert "there is no __code__" in capsys.readouterr().err
    later = {("a", i): (_nap, i) for i in range(9)} | {"b": (sum, [("a", i) for i in range(9)])}
    assert wukong.get(later, "b", granules="auto", workers=2) == 36
    assert "2 threads" in str(wukong.last_run())


def _nap(x: int) -> int:
    time.sleep(0.05)
    return x


def test_one_long_task_does_not_hand_over_many_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # Even if it is known to be long.
    monkeypatch.setitem(adaptive._lasted, adaptive.name_of([time.sleep]), 0.02)
    graph = {"long": (time.sleep, 0.02), **{f"short{i}": (str, "long") for i in range(20_000)}}
    wukong.get(graph, list(graph), granules="auto", workers=2)
    assert wukong.last_run().where == "the client, alone"


def test_tasks_known_to_be_long_are_handed_over_as_soon_as_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: Any) -> None:
        """Stands for a task that an earlier job has run."""

    def relay_at(index: int) -> Relay:
        graph = {"a": (int,), **{f"b{i}": (slow, "a") for i in range(1000)}}
        tasks, values = trace(graph, list(graph)), {"a": 0}
        relay = Relay(tasks, values, IN_PROCESS.replace(invoke=0.0), 2, None)
        relay.baton.append(index)
        return relay

    with relay_at(1) as relay:
        assert relay.look()
        assert relay.baton == [1]
    monkeypatch.setitem(adaptive._lasted, adaptive.name_of([slow]), 0.01)
    with relay_at(1) as relay:
        relay.look()
        assert relay.baton == []
