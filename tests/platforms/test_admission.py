"""The books of memory: who fits, who stands in line, and who is let in past whom."""

import pytest

from wukong.platforms.local import admission
from wukong.platforms.local.admission import Admission, context_of, having, within


class Someone:
    """A party with or without a worker at hand, which counts how often it is called."""

    def __init__(self, stands=True):
        self.at_hand = stands
        self.calls = 0

    def stands(self):
        return self.at_hand

    def look_again(self):
        self.calls += 1


@pytest.fixture
def books():
    return Admission(10)


def test_all_at_work_have_no_more_than_the_limit_together(books):
    one = Someone()
    assert books.admit(one, 6)
    assert not books.admit(one, 5)
    assert books.admit(one, 4)
    assert books.held == 10
    books.give_back(6)
    assert books.held == 4
    assert books.admit(one, 6)


def test_who_was_refused_is_called_when_memory_is_given_back(books):
    one, other = Someone(), Someone()
    assert books.admit(one, 10)
    assert not books.fits(other, 1)
    books.give_back(10)
    assert (one.calls, other.calls) == (0, 1)
    assert books.admit(other, 1)
    books.give_back(1)
    assert other.calls == 1


def test_nobody_takes_what_one_waits_for_who_came_first(books):
    at_work, first, second = Someone(), Someone(), Someone()
    assert books.admit(at_work, 4)
    assert not books.admit(first, 8)
    assert not books.admit(second, 4)
    books.give_back(4)
    assert not books.admit(second, 4)
    assert books.admit(first, 8)
    assert books.admit(second, 2)


def test_one_passes_another_if_there_is_room_for_both(books):
    at_work, first, second = Someone(), Someone(), Someone()
    assert books.admit(at_work, 5)
    assert not books.admit(first, 6)
    books.give_back(5)
    assert books.admit(second, 4)
    assert books.admit(first, 6)


def test_one_passes_another_who_has_no_worker_at_hand(books):
    at_work, first, second = Someone(), Someone(stands=False), Someone()
    assert books.admit(at_work, 4)
    assert not books.admit(first, 8)
    assert books.admit(second, 4)


def test_one_who_stands_in_line_while_nobody_is_at_work_has_to_begin(books):
    at_work, first = Someone(), Someone()
    assert not books.urges(first)
    assert books.admit(at_work, 4)
    assert not books.admit(first, 8)
    assert not books.urges(first)
    books.give_back(4)
    assert books.urges(first)
    assert books.admit(first, 8)


def test_one_who_leaves_the_line_lets_the_others_look_again(books):
    at_work, first, second = Someone(), Someone(), Someone()
    assert books.admit(at_work, 4)
    assert not books.admit(first, 8)
    assert not books.admit(second, 4)
    books.leave(first)
    assert second.calls == 1
    assert books.admit(second, 4)
    books.leave(second)
    assert second.calls == 1


def test_without_a_limit_it_is_what_the_process_may_use(monkeypatch):
    monkeypatch.setattr(admission, "memory_here", lambda: 123)
    assert Admission().limit == 123


def test_one_is_within_a_task_that_has_memory_and_after_it_no_more():
    assert not within()
    with having():
        assert within()
        assert context_of(0).run(within)
    assert not within()
    assert context_of(1).run(within)
    assert not context_of(0).run(within)
