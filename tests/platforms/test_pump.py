"""Who reads: the thread that waits, one at a time, and a background thread when none does."""

import os
import threading
import time

import pytest

from tests.platforms.packs import PATIENCE, until
from wukong.platforms.local.pump import GRACE, Pump


class Line:
    """A pipe whose bytes are counted by whoever reads them."""

    def __init__(self, pump):
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.came = 0
        self.readers = []
        self.then = lambda: None
        pump.watch(self.read_end, self._serve)

    def _serve(self, _):
        try:
            self.came += len(os.read(self.read_end, 1))
        except BlockingIOError:
            return
        self.readers.append(threading.get_ident())
        self.then()

    def send(self):
        os.write(self.write_end, b"x")

    def close(self):
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def pump():
    pump = Pump("reader-under-test")
    yield pump
    pump.close()
    pump.release()


@pytest.fixture
def line(pump):
    line = Line(pump)
    yield line
    line.close()


def start(*targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def join(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_thread_that_waits_reads_what_it_waits_for_itself(pump, line):
    for i in range(20):
        line.send()
        # The background thread may have been reading before the first.
        assert pump.wait(lambda i=i: line.came > i, PATIENCE)
    assert line.readers[1:].count(threading.get_ident()) == 19


def test_what_is_so_already_is_not_waited_for(pump):
    assert pump.wait(lambda: True, 0)


def test_a_wait_ends_after_its_time(pump):
    began = time.monotonic()
    assert not pump.wait(lambda: False, 0.01)
    assert time.monotonic() - began >= 0.01


def test_the_background_thread_reads_while_nobody_waits(pump, line):
    line.send()
    until(lambda: line.came == 1)
    assert line.readers == [pump._background.ident]


def test_the_background_thread_reads_again_after_somebody_has_waited(pump, line):
    line.send()
    assert pump.wait(lambda: line.came == 1, PATIENCE)
    line.send()
    until(lambda: line.came == 2)
    # Of one that waits for long it keeps clear.
    assert not pump.wait(lambda: False, 10 * GRACE)
    assert pump._parked or pump._reader is None
    line.send()
    until(lambda: line.came == 3)


def test_a_thread_that_waits_while_another_reads_is_woken_by_it(pump, line):
    seen = []
    threads = start(*(lambda i=i: seen.append((i, pump.wait(lambda: line.came > i, PATIENCE))) for i in range(8)))
    until(lambda: len(pump._waiting) == 8)
    for i in range(8):
        line.send()
        until(lambda i=i: len(seen) > i)
    join(threads)
    assert sorted(seen) == [(i, True) for i in range(8)]


def test_when_the_reader_leaves_another_thread_reads(pump, line):
    results = {}
    threads = start(lambda: results.update(first=pump.wait(lambda: line.came >= 1, PATIENCE)))
    until(lambda: pump._reader == threads[0].ident)
    threads += start(lambda: results.update(second=pump.wait(lambda: line.came >= 2, PATIENCE)))
    until(lambda: len(pump._waiting) == 2)
    line.send()
    join(threads[:1])
    line.send()
    join(threads)
    assert results == {"first": True, "second": True}


def test_a_reader_whose_time_is_up_passes_the_reading_on(pump, line):
    results = {}
    threads = start(lambda: results.update(first=pump.wait(lambda: False, 0.05)))
    until(lambda: pump._reader == threads[0].ident)
    threads += start(lambda: results.update(second=pump.wait(lambda: line.came, PATIENCE)))
    join(threads[:1])
    line.send()
    join(threads)
    assert results["first"] is False
    assert results["second"]


def test_what_changes_elsewhere_is_seen_after_a_look(pump):
    changed = []
    seen = []
    threads = start(*(lambda: seen.append(pump.wait(lambda: bool(changed), PATIENCE)) for _ in range(3)))
    until(lambda: len(pump._waiting) == 3)
    with pump.lock:
        changed.append(1)
        pump.look()
    join(threads)
    assert seen == [True] * 3


def test_what_serves_may_wait_itself_in_any_thread(pump, line):
    other = Line(pump)
    inner = []

    def then():
        other.send()
        inner.append(pump.wait(lambda: other.came == len(inner) + 1, PATIENCE))

    line.then = then
    line.send()
    assert pump.wait(lambda: len(inner) == 1, PATIENCE)
    # And in the background.
    time.sleep(3 * GRACE)
    line.send()
    until(lambda: len(inner) == 2)
    assert inner == [True, True]
    other.close()


def test_who_waits_is_told_when_it_closes(pump, line):
    seen = []
    threads = start(*(lambda: seen.append(pump.wait(lambda: line.came, PATIENCE)) for _ in range(3)))
    until(lambda: len(pump._waiting) == 3)
    pump.close()
    join(threads)
    assert not any(seen)


def test_no_wake_up_is_lost_among_many_threads(pump, line):
    sent = [0]
    counting = threading.Lock()
    missed = []

    def send_and_wait():
        for _ in range(200):
            with counting:
                sent[0] += 1
                mine = sent[0]
                line.send()
            if not pump.wait(lambda mine=mine: line.came >= mine, PATIENCE):
                missed.append(mine)

    join(start(*[send_and_wait] * 8))
    assert missed == []
    assert line.came == 1600


def test_an_idle_pump_does_not_wake_up(pump, line):
    line.send()
    assert pump.wait(lambda: line.came, PATIENCE)
    thread = pump._background.native_id
    switches = f"/proc/self/task/{thread}/status"

    def woken():
        with open(switches) as status:
            return sum(int(row.split()[1]) for row in status if "ctxt_switches" in row)

    # It reads, and sleeps in the kernel.
    until(lambda: pump._reader == pump._background.ident)
    time.sleep(5 * GRACE)
    before = woken()
    time.sleep(50 * GRACE)
    assert woken() == before


class InterruptedOnce:
    """The lock of a pump, during whose first release by the main thread as its reader an interrupt comes."""

    def __init__(self, pump):
        self._pump, self._lock = pump, pump.lock
        self.acquire, self.interrupted = pump.lock.acquire, False

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()

    def release(self):
        self._lock.release()
        # While the background thread reads, this one waits for its turn.
        me = threading.get_ident()
        if me == threading.main_thread().ident == self._pump._reader and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt


def test_an_interrupt_just_as_reading_begins_leaves_the_lock_free_and_nobody_reading(pump):
    inner = pump.lock
    pump.lock = InterruptedOnce(pump)
    with pytest.raises(KeyboardInterrupt):
        pump.wait(lambda: False, PATIENCE)
    pump.lock = inner
    assert not pump.wait(lambda: False, 0.01)
