"""What the model of time answers, at figures that are easy to follow."""

import pytest

from wukong.cost import DATA_CENTRE, IN_PROCESS, LOCAL_SERVER, PROCESSES, Costs, Estimates

#: A millisecond for a request, 100 MB/s, 10 ms for an invocation.
COSTS = Costs(1e-3, 100e6, 10e-3)


def test_what_takes_no_longer_to_send_than_a_request_rides_with_its_record() -> None:
    assert COSTS.inline_limit == 100_000


def test_waiting_for_a_child_is_worth_writing_and_reading_the_value() -> None:
    assert COSTS.hold(100_000_000) == pytest.approx(2.0)
    assert COSTS.replace(copies=1).hold(100_000_000) == pytest.approx(1.0)
    assert COSTS.replace(copies=0).hold(100_000_000) == 0.0


def test_what_is_held_at_all_is_worth_a_request_to_ask_how_it_stands() -> None:
    assert COSTS.hold(COSTS.inline_limit + 1) > 2 * COSTS.round_trip


@pytest.mark.parametrize(
    ("seconds", "queued", "kept"),
    [(1.0, 0, 1), (2e-3, 0, 5), (2e-3, 3, 2), (2e-3, 9, 1), (1e-6, 0, 1000), (0.0, 0, 1000)],
)
def test_an_executor_keeps_what_it_runs_while_an_invocation_is_on_its_way(
    seconds: float, queued: int, kept: int
) -> None:
    assert COSTS.keep(seconds, queued, 0, 1000) == kept


#: 90.5 ms to write and as long to read, so that a child elsewhere begins 100.5 ms later.
BYTES = 9_050_000


@pytest.mark.parametrize(
    ("seconds", "queued", "kept"), [(1.0, 0, 1), (20e-3, 0, 5), (20e-3, 2, 3), (20e-3, 50, 1), (1e-3, 0, 100)]
)
def test_it_keeps_what_it_runs_while_another_is_invoked_and_reads_the_value(
    seconds: float, queued: int, kept: int
) -> None:
    assert COSTS.keep(seconds, queued, BYTES, 900) == kept


@pytest.mark.parametrize(("children", "kept"), [(5, 5), (9, 9), (10, 5)])
def test_it_keeps_all_if_the_others_last_no_longer_than_writing_the_value(children: int, kept: int) -> None:
    assert COSTS.keep(20e-3, 0, BYTES, children) == kept


@pytest.mark.parametrize(("queued", "kept"), [(0, 50), (10, 40), (60, 1)])
def test_while_nobody_is_idle_it_keeps_what_lasts_ten_times_as_long_as_shipping(queued: int, kept: int) -> None:
    assert COSTS.keep(20e-3, queued, BYTES, 900, busy=True) == kept


def test_where_reading_is_free_bytes_keep_children_here_only_if_none_has_to_be_shipped() -> None:
    mapped = COSTS.replace(copies=1)
    assert mapped.keep(20e-3, 0, BYTES, 900) == 1
    assert mapped.keep(20e-3, 0, BYTES, 5) == 5
    given = COSTS.replace(copies=0)
    assert given.keep(20e-3, 0, BYTES, 5) == 1


@pytest.mark.parametrize(("seconds", "tasks"), [(1.0, 1), (2e-3, 5), (10e-3, 1)])
def test_an_invocation_carries_tasks_for_as_long_as_it_takes(seconds: float, tasks: int) -> None:
    assert COSTS.group(seconds) == tasks


def test_finished_work_lingers_so_long_that_settling_is_a_fifth_of_it() -> None:
    assert COSTS.round_trip / (COSTS.linger + COSTS.round_trip) == pytest.approx(1 / 5)


def test_constants_can_be_overridden_and_the_rest_stays() -> None:
    changed = COSTS.replace(round_trip=2e-3)
    assert (changed.round_trip, changed.invoke) == (2e-3, COSTS.invoke)
    assert COSTS.round_trip == 1e-3


@pytest.mark.parametrize("costs", [IN_PROCESS, LOCAL_SERVER, PROCESSES, DATA_CENTRE])
def test_measured_constants_say_when_and_where(costs: Costs) -> None:
    assert costs.measured
    assert costs.lease > 0
    assert costs.attempts > 1


def test_in_one_process_everything_is_inline_and_nothing_is_held() -> None:
    assert IN_PROCESS.inline_limit > 10**9
    assert IN_PROCESS.hold(10**12) == 0.0


def test_a_kind_is_unknown_until_one_has_run_and_then_follows_what_was_seen() -> None:
    estimates = Estimates(unknown=0.5)
    assert estimates.seconds(7) == 0.5
    estimates.saw(7, 1.0)
    assert estimates.seconds(7) == 1.0
    estimates.saw(7, 3.0)
    assert estimates.seconds(7) == pytest.approx(1.5)
    for _ in range(50):
        estimates.saw(7, 3.0)
    assert estimates.seconds(7) == pytest.approx(3.0)
    assert estimates.seconds(8) == 0.5


def test_a_walk_is_handed_over_only_when_it_has_worked_for_longer_than_that_costs() -> None:
    assert not IN_PROCESS.hand_over(0.01, 1000)
    assert IN_PROCESS.hand_over(0.06, 1000)


def test_a_walk_known_to_be_long_is_handed_over_at_once_if_two_are_done_with_it_sooner() -> None:
    assert not IN_PROCESS.hand_over(0.0, 1000, expected=0.09)
    assert IN_PROCESS.hand_over(0.0, 1000, expected=0.11)
