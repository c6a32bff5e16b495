"""Calls in processes: what comes back, in what order they run, and what becomes of them when workers die."""

import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import numpy.random
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.platforms.packs import PATIENCE, Started, is_alive, until
from wukong import serialize
from wukong.errors import CannotTravel, ClientClosed, WorkerLost
from wukong.platforms.local.calls import Input


@pytest.fixture(scope="module")
def started():
    with Started() as started:
        yield started


def add(x, y=1):
    return x + y


class AwkwardError(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} and {other}")


def wait_for_file(path):
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.002)


def test_functions_of_every_kind_are_called(started):
    factor = 3
    assert started.run(add, 1, y=2) == 3
    assert started.run(len, [1, 2]) == 2
    assert started.run(lambda x: x * factor, 2) == 6
    assert started.run("a-b".split, "-") == ["a", "b"]
    assert started.run(int, "7") == 7


def test_calls_run_in_other_processes(started):
    assert os.getpid() not in {started.run(os.getpid) for _ in range(4)}


def test_a_closure_is_sent_as_it_is_at_each_call(started):
    captured, number = [1], 1

    def look():
        return captured[0], number

    assert started.run(look) == (1, 1)
    captured[0] = number = 2
    assert started.run(look) == (2, 2)


def test_a_function_of_main_sees_its_globals_as_they_are_at_each_call(started):
    space = {"__name__": "__main__"}
    exec("def look(): return inner() + 1\ndef inner(): return size\nsize = 1", space)
    assert started.run(space["look"]) == 2
    space["size"] = 2
    assert started.run(space["look"]) == 3
    exec("def inner(): return size * 10", space)
    assert started.run(space["look"]) == 21


def test_inputs_stand_wherever_their_placeholders_do(started):
    inputs = [bytes(serialize.dumps(4)), bytes(serialize.dumps([5]))]
    found = started.run(
        lambda *args, **kwargs: (args, kwargs), {"a": [Input(0)]}, Input(1), inputs=inputs, k=(Input(0),)
    )
    assert found == (({"a": [4]}, [5]), {"k": (4,)})


def test_large_arguments_inputs_and_results_go_through_the_arena(started):
    array = np.arange(200_000.0)
    doubled = started.submit(lambda x: 2 * x, array)
    doubled.get()
    assert type(doubled.sealed) is not bytes
    total = started.run(lambda x: float(x.sum()), Input(0), inputs=[doubled.sealed])
    assert total == 2 * array.sum()
    np.testing.assert_array_equal(started.run(lambda x: x, array), array)


def test_what_a_function_raises_is_raised_with_its_traceback(started):
    def fails():
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing") as caught:
        started.run(fails)
    # Where tblib is installed, the traceback itself came along.
    told = traceback.format_exception(caught.value)
    assert "in fails" in "".join(told)


def test_an_error_keeps_its_type_whatever_its_constructor_takes(started):
    def fails():
        raise AwkwardError(1, 2)

    with pytest.raises(AwkwardError, match="1 and 2"):
        started.run(fails)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_errors_that_end_programs_end_only_the_call(started, error):
    until(lambda: len(started.pack.pids) == started.pack.workers, "the start of all workers")
    before = sorted(started.pack.pids)

    def fails():
        raise error

    with pytest.raises(error):
        started.run(fails)
    assert started.run(add, 1) == 2
    assert sorted(started.pack.pids) == before


def test_what_cannot_travel_is_refused_by_name(started):
    def makes_a_lock():
        return threading.Lock()

    with pytest.raises(CannotTravel, match=r"result of .*makes_a_lock"):
        started.run(makes_a_lock)
    with pytest.raises(CannotTravel, match="arguments of add"):
        started.run(add, threading.Lock())
    lock = threading.Lock()
    with pytest.raises(CannotTravel, match=r"function .*lambda.*lock"):
        started.run(lambda: lock)
    assert started.run(add, 1) == 2


def test_results_nested_too_deep_are_refused(started):
    def deep():
        nested = []
        for _ in range(100_000):
            nested = [nested]
        return nested

    with pytest.raises(CannotTravel, match="result of"):
        started.run(deep)
    with pytest.raises(RecursionError):
        started.run(lambda: (f := lambda: f())())


def test_a_function_that_cannot_be_loaded_there_says_so(started, tmp_path, monkeypatch):
    (tmp_path / "only_here_yet.py").write_text("def f(): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("only_here_yet")
    (tmp_path / "only_here_yet.py").unlink()
    with pytest.raises(ModuleNotFoundError) as caught:
        started.run(module.f)
    assert "was about to be called" in "".join(caught.value.__notes__)
    del sys.modules["only_here_yet"]


@pytest.mark.parametrize("end", [lambda: os._exit(7), lambda: os.kill(os.getpid(), signal.SIGKILL)])
def test_a_worker_that_dies_costs_only_what_it_ran(started, end):
    others = [started.submit(add, i) for i in range(20)]
    lost = started.submit(end)
    others += [started.submit(add, i) for i in range(20)]
    with pytest.raises(WorkerLost, match="lambda") as caught:
        lost.get()
    assert caught.value.status in (7, -9)
    assert caught.value.pid not in started.pack.pids
    assert [other.get() for other in others] == 2 * list(range(1, 21))


def test_what_a_worker_has_started_ends_with_it(tmp_path):
    def dies_first():
        program = subprocess.Popen(["sleep", "1000"])
        (tmp_path / "pid").write_text(str(program.pid))
        os._exit(1)

    with Started(1) as started:
        with pytest.raises(WorkerLost):
            started.run(dies_first)
        program = int((tmp_path / "pid").read_text())
        until(lambda: not is_alive(program), "the end of the program")


def test_calls_that_were_not_begun_when_their_worker_died_run_elsewhere_and_only_once_the_other_three_times(tmp_path):
    def note(i):
        with open(tmp_path / "notes", "a") as notes:
            notes.write(f"{i}\n")
        if i == 37:
            os._exit(1)

    with Started(2) as started:
        started.run(note, -1)
        outcomes = [started.submit(note, i) for i in range(100)]
        with pytest.raises(WorkerLost):
            outcomes[37].get()
        for i in (*range(37), *range(38, 100)):
            outcomes[i].get()
    assert sorted(map(int, (tmp_path / "notes").read_text().split())) == sorted([37, 37, *range(-1, 100)])


def test_short_calls_do_not_wait_behind_a_long_one_while_a_worker_is_idle(tmp_path):
    def sometimes_long(i):
        if i == 5:
            wait_for_file(tmp_path / "go")
        return i

    with Started(2) as started:
        # So that it is taken for a short one.
        for _ in range(20):
            started.run(sometimes_long, 0)
        outcomes = [started.submit(sometimes_long, i) for i in range(60)]
        assert [outcomes[i].get() for i in range(60) if i != 5] == [i for i in range(60) if i != 5]
        assert not outcomes[5].done
        (tmp_path / "go").touch()
        assert outcomes[5].get() == 5


def test_higher_priorities_go_first_and_equal_ones_in_order(tmp_path):
    def note(i):
        with open(tmp_path / "notes", "a") as notes:
            notes.write(f"{i} ")

    with Started(1) as started:
        blocked = started.submit(wait_for_file, tmp_path / "go")
        outcomes = [started.submit(note, i, priority=p) for i, p in enumerate([0, 1, 0, 2, 1])]
        (tmp_path / "go").touch()
        for outcome in (blocked, *outcomes):
            outcome.get()
    assert (tmp_path / "notes").read_text().split() == ["3", "1", "4", "0", "2"]


def test_a_call_that_is_taken_back_never_runs(tmp_path):
    with Started(1) as started:
        blocked = started.submit(wait_for_file, tmp_path / "go")
        unwanted = started.submit(lambda: (tmp_path / "ran").touch())
        assert started.calls.cancel(unwanted.call)
        assert not started.calls.cancel(unwanted.call)
        assert not started.calls.cancel(blocked.call)
        (tmp_path / "go").touch()
        blocked.get()
        started.run(add, 1)
        assert not (tmp_path / "ran").exists()
        assert not unwanted.done


def test_a_running_call_can_be_ended_with_what_it_has_started(tmp_path):
    def starts_a_program():
        program = subprocess.Popen(["sleep", "1000"])
        (tmp_path / "new").write_text(str(program.pid))
        os.rename(tmp_path / "new", tmp_path / "pid")
        program.wait()

    with Started(1) as started:
        outcome = started.submit(starts_a_program)
        until((tmp_path / "pid").exists)
        program = int((tmp_path / "pid").read_text())
        assert is_alive(program)
        started.calls.kill(outcome.call)
        with pytest.raises(WorkerLost, match="SIGKILL"):
            outcome.get()
        until(lambda: not is_alive(program), "the end of the program")
        assert started.run(add, 1) == 2


def test_random_numbers_differ_between_workers(tmp_path):
    def draw(others):
        # Both workers draw at the same time, so they are two.
        (tmp_path / str(os.getpid())).touch()
        deadline = time.monotonic() + PATIENCE
        while len(os.listdir(tmp_path)) < others and time.monotonic() < deadline:
            time.sleep(0.002)
        return os.getpid(), random.random(), float(np.random.random())

    # So that the keeper has it, and with it one state for all.
    assert "numpy.random" in sys.modules
    with Started(2) as started:
        drawn = [outcome.get() for outcome in [started.submit(draw, 2) for _ in range(2)]]
    assert len({pid for pid, _, _ in drawn}) == 2
    assert len({number for _, *numbers in drawn for number in numbers}) == 4


def test_many_threads_wait_at_once(started):
    found = {}

    def ask(who):
        found[who] = [started.run(add, who, i) for i in range(30)]

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == {who: [who + i for i in range(30)] for who in range(16)}


def test_callbacks_come_while_nobody_waits(started):
    came = threading.Event()
    started.calls.start(add, (1,), {}, (), lambda *_: came.set())
    assert came.wait(PATIENCE)


def test_a_callback_may_start_calls_and_wait_for_them(started):
    came = []

    def then(*_):
        came.append(started.run(add, 5))

    started.calls.start(add, (1,), {}, (), then)
    until(lambda: came)
    assert came == [6]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["short", "long", "fails", "dies", "large"]), st.integers(0, 3)), max_size=10)
)
def test_whatever_is_submitted_each_call_has_one_outcome_and_it_is_its_own(started, calls):
    def act(what, i):
        if what == "long":
            time.sleep(0.003)
        elif what == "fails":
            raise ValueError(i)
        elif what == "dies":
            os._exit(i)
        return (i, bytes(200_000)) if what == "large" else i

    outcomes = [(what, i, started.submit(act, what, i, priority=i)) for what, i in calls]
    for what, i, outcome in outcomes:
        if what == "fails":
            with pytest.raises(ValueError, match=str(i)):
                outcome.get()
        elif what == "dies":
            with pytest.raises(WorkerLost) as caught:
                outcome.get()
            assert caught.value.status == i
        else:
            assert outcome.get() == ((i, bytes(200_000)) if what == "large" else i)
    # More than thirty deaths in a row would end the pack.
    assert started.run(add, 1) == 2


def test_calls_that_wait_when_the_client_closes_are_told(tmp_path):
    started = Started(1)
    running = started.submit(wait_for_file, tmp_path / "never")
    waiting = started.submit(add, 1)
    started.pack.close()
    assert isinstance(running.error, WorkerLost)
    assert isinstance(waiting.error, ClientClosed)
    with pytest.raises(ClientClosed):
        started.run(add, 1)
