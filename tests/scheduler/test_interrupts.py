"""Ctrl-C at each request that a compute over a server makes in its own thread leaves nothing in that server."""

import signal
import threading

import pytest

import wukong
from tests.servers import wait_for
from wukong.storage.link import Link
from wukong.storage.open import connect

GRAPH = {"a": 1, **{f"b{i}": (pow, "a", i) for i in range(8)}, "c": (sum, [f"b{i}" for i in range(8)])}


class Interrupter:
    """Presses Ctrl-C before, or after, the nth request of this thread."""

    def __init__(self, when: str) -> None:
        self.when, self.number, self.seen = when, 0, 0

    def begin(self, number: int) -> None:
        """Count from here."""
        self.number, self.seen = number, 0

    def __call__(self, moment: str) -> None:
        if moment == self.when and threading.current_thread() is threading.main_thread():
            self.seen += 1
            if self.seen == self.number:
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_at_any_request_of_a_compute_leaves_nothing_in_the_store(tcp_url, monkeypatch, when):
    deliver, interrupter = Link._deliver, Interrupter(when)

    def delivered(link, *arguments):
        interrupter("before")
        answer = deliver(link, *arguments)
        interrupter("after")
        return answer

    monkeypatch.setattr(Link, "_deliver", delivered)
    look = connect(tcp_url)
    interrupted = 0
    for number in range(1, 200):
        interrupter.begin(number)
        try:
            assert wukong.get(GRAPH, "c", store=tcp_url, granules="threads", workers=2) == 8
        except KeyboardInterrupt:
            interrupted += 1
        passed = interrupter.seen < number
        interrupter.begin(0)
        wait_for(lambda: look.call(b"", b"KEYS", b"wk:*") == [], f"nothing is left of Ctrl-C at request {number}")
        if passed:
            break
    look.close()
    assert interrupted > 5
    assert passed
