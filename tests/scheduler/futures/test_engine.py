"""The engine of calls: order, dependencies, places given up while waiting, cancellation, retries."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wukong.errors import ClientClosed
from wukong.scheduler.futures.call import CANCELLED, FAILED, FINISHED, Call, FutureCancelled, Input, fill, lift
from wukong.scheduler.futures.engine import Engine
from wukong.scheduler.futures.lanes import Turn
from wukong.scheduler.futures.outcome import outcome

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def engine() -> Iterator[Engine]:
    one = Engine(1)
    yield one
    one.close()


def call(engine: Engine, function: Callable[..., Any], *inputs: Call, **options: Any) -> Call:
    return Call(engine, object(), function, lift_inputs(inputs), None, inputs, **options)


def lift_inputs(inputs: tuple[Call, ...]) -> Any:
    class Stand:
        __dask_future__ = True

        def __init__(self, call: Call) -> None:
            self.call = call

    return lift(tuple(Stand(one) for one in inputs), {})


def run(engine: Engine, *calls: Call, **options: Any) -> list[Any]:
    engine.submit(calls, **options)
    assert engine.wait(calls, 20)
    return [one.value for one in calls]


class Gate:
    """Keeps the only worker busy until it is opened."""

    def __init__(self, engine: Engine) -> None:
        self._begun, self._open = threading.Event(), threading.Event()
        self.call = call(engine, self._hold)
        engine.submit([self.call])
        assert self._begun.wait(20)

    def _hold(self) -> None:
        self._begun.set()
        assert self._open.wait(20)

    def open(self) -> None:
        self._open.set()


def test_a_call_runs_when_its_inputs_are_there(engine: Engine) -> None:
    one = call(engine, lambda: 1)
    two = call(engine, lambda x: x + 1, one)
    three = call(engine, lambda x, y: (x, y), one, two)
    assert run(engine, one, two, three) == [1, 2, (1, 2)]


def test_higher_priority_runs_first_and_equals_in_the_order_they_came(engine: Engine) -> None:
    gate, seen = Gate(engine), []
    calls = [call(engine, lambda n=n: seen.append(n), priority=p) for n, p in enumerate([0, 5, 0, -1, 5, 2.5])]
    engine.submit(calls)
    gate.open()
    assert engine.wait(calls, 20)
    assert seen == [1, 4, 5, 0, 2, 3]


def test_a_group_that_comes_late_takes_turns_with_one_that_has_many_calls_waiting(engine: Engine) -> None:
    gate, seen = Gate(engine), []
    many = [call(engine, lambda: seen.append("many")) for _ in range(1000)]
    few = [call(engine, lambda: seen.append("few")) for _ in range(3)]
    engine.submit(many, turn=Turn())
    engine.submit(few, turn=Turn())
    gate.open()
    assert engine.wait(few, 20)
    assert [seen.index("few"), seen.count("few")] == [1, 3]
    # One of the many for each of the few; while the few are waited for, another few may have run.
    assert seen[:6] == ["many", "few"] * 3
    assert engine.wait(many, 20)


def test_a_call_that_waits_for_calls_gives_up_its_place(engine: Engine) -> None:
    def deep(n: int) -> int:
        if n == 0:
            return 0
        below = call(engine, lambda: deep(n - 1))
        engine.submit([below])
        assert engine.wait([below], 20)
        return below.value + 1

    # With a time-out nothing is run by whoever waits, so this takes a thread for each level.
    assert run(engine, call(engine, lambda: deep(40))) == [40]
    assert engine.threads.working == 0


def test_who_waits_runs_what_nobody_has_begun(engine: Engine) -> None:
    gate = Gate(engine)
    ran_by: list[int] = []
    gate.open()
    assert engine.wait([gate.call], 20)

    def ask() -> None:
        inner = call(engine, lambda: ran_by.append(threading.get_ident()))
        below = call(engine, lambda _: ran_by.append(threading.get_ident()), inner)
        engine.submit([inner, below])
        engine.wait([below])
        ran_by.append(threading.get_ident())

    outer = call(engine, ask)
    engine.submit([outer])
    assert engine.wait([outer], 20)
    assert len(set(ran_by)) == 1
    assert len(ran_by) == 3


def test_never_more_run_at_once_than_there_are_workers_whoever_runs_them() -> None:
    engine, lock, now, most = Engine(2), threading.Lock(), 0, 0

    def busy() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.001)
        with lock:
            now -= 1

    calls = [call(engine, busy) for _ in range(60)]
    engine.submit(calls)
    threads = [threading.Thread(target=engine.wait, args=([one],)) for one in calls[::6]]
    for thread in threads:
        thread.start()
    assert engine.wait(calls, 20)
    for thread in threads:
        thread.join(20)
    engine.close()
    assert most == 2


def test_a_failure_ends_what_needs_it_with_the_same_error_and_says_which_way(engine: Engine) -> None:
    def fail() -> None:
        raise LookupError("gone")

    one = call(engine, fail)
    two = call(engine, lambda x: x, one)
    three = call(engine, lambda x: x, two)
    one.key, two.key, three.key = "one", "two", "three"
    fine = call(engine, lambda: "fine")
    assert run(engine, one, two, three, fine)[-1] == "fine"
    error = outcome(three)
    assert type(error) is LookupError
    assert error.__notes__ == ["wukong: call 'one' failed, on the way 'one' -> 'two' -> 'three'"]
    assert outcome(one).__notes__ == ["wukong: call 'one' failed"]
    late = call(engine, lambda x: x, three)
    engine.submit([late])
    assert late.state == FAILED


def test_errors_that_have_no_copy_and_take_no_note_still_come_through(engine: Engine) -> None:
    class OddError(Exception):
        def __init__(self, *, a: int) -> None:
            super().__init__(f"odd {a}")

        def add_note(self, note: str) -> None:
            raise RuntimeError(note)

    def fail() -> None:
        raise OddError(a=1)

    one = call(engine, fail)
    two = call(engine, lambda x: x, one)
    run(engine, one, two)
    assert outcome(two) is outcome(one)
    assert type(outcome(two)) is OddError


def test_a_call_may_run_again_with_the_same_inputs(engine: Engine) -> None:
    seen: list[list[int]] = []

    def flaky(x: list[int]) -> str:
        seen.append(x)
        if len(seen) < 3:
            raise OSError
        return "through"

    one = call(engine, lambda: [7])
    assert run(engine, one, call(engine, flaky, one, retries=2))[1] == "through"
    assert seen == [[7]] * 3
    seen.clear()
    few = call(engine, flaky, one, retries=1)
    run(engine, few)
    assert type(outcome(few)) is OSError


def test_what_is_cancelled_before_it_begins_never_runs_nor_what_needs_it(engine: Engine) -> None:
    gate, ran = Gate(engine), []
    one = call(engine, lambda: ran.append(1))
    two = call(engine, lambda _: ran.append(2), one)
    three = call(engine, lambda: ran.append(3))
    engine.submit([one, two, three])
    assert engine.cancel([one]) == ([one], [])
    assert (one.state, two.state) == (CANCELLED, CANCELLED)
    gate.open()
    assert engine.wait([three], 20)
    assert ran == [3]
    error = outcome(two)
    assert type(error) is FutureCancelled
    assert "was cancelled, on the way" in str(error)


def test_a_call_that_runs_is_cancelled_only_to_those_who_wait(engine: Engine) -> None:
    gate = Gate(engine)
    assert engine.cancel([gate.call], begun=False) == ([], [])
    assert not gate.call.done
    assert engine.cancel([gate.call]) == ([], [(gate.call.key, "a thread of this process")])
    assert gate.call.state == CANCELLED
    after = call(engine, lambda: "after")
    engine.submit([after])
    assert not engine.wait([after], 0.02)
    gate.open()
    assert engine.wait([after], 20)
    assert gate.call.state == CANCELLED


def test_waiting_with_a_time_out_leaves_nothing_behind(engine: Engine) -> None:
    gate = Gate(engine)
    for _ in range(3):
        assert not engine.wait([gate.call], 0.001)
    assert gate.call.callbacks == []
    gate.open()


def test_a_value_is_freed_with_its_last_holder_and_not_before_waiting_calls_have_read_it(engine: Engine) -> None:
    class Big:
        pass

    gate = Gate(engine)
    one = call(engine, Big)
    two = call(engine, weakref.ref, one)
    engine.submit([one, two])
    del one
    gate.open()
    assert engine.wait([two], 20)
    gate_open = call(engine, lambda: None)
    run(engine, gate_open)
    gc.collect()
    assert two.value() is None
    held = call(engine, Big)
    run(engine, held)
    value = weakref.ref(held.value)
    assert value() is not None
    del held
    run(engine, call(engine, lambda: None))
    assert value() is None


def test_a_closed_engine_cancels_takes_nothing_and_lets_its_threads_end() -> None:
    engine = Engine(1)
    gate = Gate(engine)
    one = call(engine, lambda: None)
    engine.submit([one])
    waiting = threading.Thread(target=engine.wait, args=([one],))
    waiting.start()
    engine.close()
    waiting.join(20)
    assert not waiting.is_alive()
    assert (one.state, gate.call.state) == (CANCELLED, CANCELLED)
    with pytest.raises(ClientClosed, match=r"wukong\.Client"):
        engine.submit([call(engine, lambda: None)])
    gate.open()
    deadline = time.monotonic() + 20
    while any(thread.name == "wukong-call" and thread.is_alive() for thread in _threads_of(engine)):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _threads_of(engine: Engine) -> list[threading.Thread]:
    return [
        t for t in threading.enumerate() if getattr(getattr(t, "_target", None), "__self__", None) is engine.threads
    ]


def test_a_callback_that_raises_harms_nobody(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    one = call(engine, lambda: 1)
    told: list[int] = []

    def fail(_: Call) -> None:
        raise ValueError("of the callback")

    engine.watch(one, fail)
    engine.watch(one, lambda one: told.append(one.value))
    assert run(engine, one) == [1]
    deadline = time.monotonic() + 20
    while not told:  # those who wait may go on before every callback is through
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert "of the callback" in caplog.text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 9)), min_size=1, max_size=25),
    st.integers(1, 3),
    st.sets(st.integers(0, 24), max_size=3),
)
def test_random_graphs_of_calls_give_what_plain_evaluation_gives(
    graph: list[tuple[list[int], int]], workers: int, cancelled: set[int]
) -> None:
    engine = Engine(workers)
    calls: list[Call] = []
    expected: list[Any] = []
    for index, (reads, kind) in enumerate(graph):
        inputs = sorted({read % index for read in reads}) if index else []

        def work(*values: int, index: int = index, kind: int = kind) -> int:
            if kind == 0:
                raise ArithmeticError(index)
            return index + sum(values)

        calls.append(call(engine, work, *[calls[i] for i in inputs]))
        bad = next((expected[i] for i in inputs if isinstance(expected[i], Exception)), None)
        expected.append(bad or (ArithmeticError(index) if kind == 0 else index + sum(expected[i] for i in inputs)))
    engine.submit(calls)
    engine.cancel([calls[index] for index in cancelled if index < len(calls)])
    assert engine.wait(calls, 20)
    for one, value in zip(calls, expected, strict=True):
        if one.state == CANCELLED:
            assert cancelled
        elif isinstance(value, Exception):
            assert (one.state, type(outcome(one))) == (FAILED, ArithmeticError)
        else:
            assert (one.state, one.value) == (FINISHED, value)
    if not cancelled:
        assert all(one.state != CANCELLED for one in calls)
    assert not engine.undone
    assert engine.threads.working <= workers
    engine.close()


def test_arguments_are_taken_apart_and_put_together_with_their_types() -> None:
    from collections import namedtuple

    point = namedtuple("point", "x y")
    engine = Engine(1)
    one = call(engine, lambda: None)
    stand = type("Stand", (), {"__dask_future__": True, "call": one})()
    inputs: dict[Call, int] = {}
    plain = ([1, (2, {"a": 3})], "text")
    assert lift(plain, inputs) is plain
    assert not inputs
    lifted = lift(([stand, 1], (stand,), {stand}, {"k": stand}, point(stand, 2), frozenset({stand})), inputs)
    assert inputs == {one: 0}
    found = fill(lifted, ["v"])
    assert found == (["v", 1], ("v",), {"v"}, {"k": "v"}, point("v", 2), frozenset({"v"}))
    assert type(found[4]) is point
    assert type(lift(stand, {})) is Input
    engine.close()
