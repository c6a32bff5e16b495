"""The page that a client shares with its workers: who sees what in it, and when places are used again."""

from wukong.platforms.local.page import Flag, Page, Seen


def test_workers_see_that_a_job_is_over_and_no_other_is() -> None:
    page = Page()
    one, other = page.take(), page.take()
    seen = [Seen(page.fd, flag, worker=1) for flag in (one, other)]
    assert [view.over for view in seen] == [False, False]
    page.lower(one)
    assert [view.over for view in seen] == [True, False]


def test_a_place_that_is_used_again_does_not_take_a_job_back_to_life() -> None:
    page = Page()
    old = page.take()
    seen = Seen(page.fd, old, worker=1)
    page.give_back(old)
    new = page.take()
    assert new.place == old.place
    assert seen.over
    assert not Seen(page.fd, new, worker=1).over
    page.lower(old)
    assert not Seen(page.fd, new, worker=1).over


def test_where_there_are_no_places_left_jobs_go_on() -> None:
    page = Page()
    while (flag := page.take()).place:
        pass
    assert flag == Flag(0, 0)
    seen = Seen(page.fd, flag, worker=1)
    page.lower(flag)
    assert not seen.over
    page.give_back(flag)


def test_the_client_sees_what_a_worker_is_at() -> None:
    page = Page()
    seen = Seen(page.fd, page.take(), worker=7)
    assert page.task_of(7) is None
    seen[1] = 0
    assert page.task_of(7) == 0
    assert page.task_of(8) is None
    del seen[1]
    assert page.task_of(7) is None
    assert seen == {}
