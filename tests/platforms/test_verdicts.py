"""What naps say of functions, and which functions are worth moving."""

import sys
import threading
import time
from collections.abc import Callable, Hashable

import numpy as np
import pytest

from wukong.cost import PROCESSES, Costs
from wukong.platforms.local.verdicts import Nap, Seen, Verdicts, worth

LATE = Seen(0.006, ran=True)
PROMPT = Seen(0.0, ran=True)
IDLE = Seen(0.0, ran=False)


class Queued:
    """The kernel's books, of a thread that waits for a processor as long as it is told."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def open(self) -> None:
        pass

    def waited(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def _nobody_waited_for_a_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naps that are told, not taken, have nothing in the kernel's books, where other tests have left something."""
    if "function" not in request.fixturenames:
        monkeypatch.setattr("wukong.platforms.local.verdicts._queue", Queued(0.0))


def judged(*naps: Seen | None, at_work: tuple[Hashable, ...] = ("f",)) -> bool | None:
    verdicts = Verdicts()
    for seen in naps:
        verdicts.saw(at_work, seen)
    return verdicts.holds("f")


def test_three_naps_that_agree_are_a_verdict_and_two_are_none() -> None:
    assert judged(LATE, LATE) is None
    assert judged(LATE, LATE, LATE) is True
    assert judged(PROMPT, PROMPT) is None
    assert judged(PROMPT, PROMPT, PROMPT) is False


def test_naps_that_disagree_are_outvoted_by_a_majority_only() -> None:
    assert judged(LATE, PROMPT, LATE, PROMPT, LATE) is True
    assert judged(PROMPT, LATE, PROMPT, LATE, PROMPT, LATE) is None
    assert judged(PROMPT, LATE, PROMPT, PROMPT, PROMPT) is False


def test_a_verdict_stays() -> None:
    assert judged(LATE, LATE, LATE, *[PROMPT] * 20) is True
    assert judged(PROMPT, PROMPT, PROMPT, *[LATE] * 20) is False


def test_a_late_nap_while_this_process_hardly_ran_says_nothing() -> None:
    assert judged(*[Seen(0.02, ran=False)] * 20) is None


def test_a_prompt_nap_while_this_process_hardly_ran_says_little() -> None:
    assert judged(*[IDLE] * 8) is None
    assert judged(*[IDLE] * 10) is False


def test_a_nap_that_ended_before_its_time_says_nothing() -> None:
    assert judged(*[None] * 20) is None


def test_a_prompt_nap_speaks_for_all_that_ran_and_a_late_one_against_nobody_of_several() -> None:
    verdicts = Verdicts()
    for _ in range(10):
        verdicts.saw(("f", "g"), LATE)
    assert verdicts.holds("f") is verdicts.holds("g") is None
    for _ in range(3):
        verdicts.saw(("f", "g"), PROMPT)
    assert verdicts.holds("f") is verdicts.holds("g") is False


def test_beside_the_innocent_a_late_nap_counts_and_beside_the_guilty_it_does_not() -> None:
    verdicts = Verdicts()
    for _ in range(3):
        verdicts.saw(("sleeps",), PROMPT)
    for _ in range(3):
        verdicts.saw(("sleeps", "loops"), LATE)
    assert verdicts.holds("sleeps") is False
    assert verdicts.holds("loops") is True
    for _ in range(20):
        verdicts.saw(("loops", "other"), LATE)
    assert verdicts.holds("other") is None


def test_several_tasks_of_one_function_are_one_suspect() -> None:
    assert judged(LATE, LATE, LATE, at_work=("f", "f")) is True


def test_who_asks_is_told_whether_a_nap_may_tell_something() -> None:
    verdicts = Verdicts()
    assert not verdicts.asks(())
    assert verdicts.asks(("f",))
    for _ in range(3):
        verdicts.saw(("f",), LATE)
    assert not verdicts.asks(("f",))
    assert verdicts.asks(("f", "g"))


def test_naps_that_were_late_for_want_of_a_processor_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wukong.platforms.local.verdicts._queue", Queued(0.015))
    assert judged(*[LATE] * 12) is None


def test_where_processors_are_short_a_verdict_takes_twice_the_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wukong.platforms.local.verdicts._queue", Queued(0.02))
    late = Seen(0.03, ran=True)
    assert judged(*[late] * 5) is None
    assert judged(*[late] * 6) is True


def test_a_nap_that_ends_early_is_no_nap() -> None:
    assert Nap(1000.0).end() is None


def loop() -> None:
    sum(i * i for i in range(100_000))


def sleep() -> None:
    time.sleep(0.01)


ARRAY = np.ones((400, 400))


def multiply() -> None:
    for _ in range(20):
        ARRAY @ ARRAY


@pytest.mark.parametrize(("function", "holds"), [(loop, True), (sleep, False), (multiply, False)])
def test_a_python_loop_holds_the_interpreter_and_sleep_and_numpy_do_not(
    function: Callable[[], None], holds: bool
) -> None:
    verdicts = Verdicts()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            function()

    worker = threading.Thread(target=work)
    worker.start()
    deadline = time.monotonic() + 30
    try:
        while verdicts.holds(function) is None and time.monotonic() < deadline:
            verdicts.look(lambda: (function,))
    finally:
        over.set()
        worker.join()
    assert verdicts.holds(function) is holds


def test_a_look_counts_only_for_what_is_at_work_before_and_after_it() -> None:
    verdicts = Verdicts()
    turns = iter([("f", "g"), ("g", "h")] * 20)
    for _ in range(20):
        verdicts.look(lambda: next(turns), pause=1e-6)
    assert verdicts.holds("g") is False
    assert verdicts.holds("f") is verdicts.holds("h") is None


def test_the_limit_follows_the_switch_interval() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        nap = Nap(0.0)
        time.sleep(0.02)
        seen = nap.end()
    finally:
        sys.setswitchinterval(before)
    assert seen is not None
    assert seen.held == 0.0


def test_a_task_is_worth_moving_if_it_lasts_longer_than_shipping_what_it_needs() -> None:
    costs = Costs(1e-3, 1e9, 0.0)
    assert not worth(0.9e-3, 0, costs)
    assert worth(1.1e-3, 0, costs)
    assert not worth(1.1e-3, 1e6, costs)
    assert worth(2.1e-3, 1e6, costs)
    assert worth(5e-3, 1e6, PROCESSES)
