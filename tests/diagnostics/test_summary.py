"""What a run looks like to people."""

import pytest

from wukong.diagnostics.summary import duration, size, summary
from wukong.events import Run


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 us"),
        (3.2e-7, "0.32 us"),
        (1.25e-6, "1.25 us"),
        (98.76e-6, "98.8 us"),
        (1.25e-3, "1.25 ms"),
        (0.4567, "457 ms"),
        (1.0, "1.00 s"),
        (4321.0, "4,321 s"),
    ],
)
def test_a_time_has_three_digits_and_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (65_536, "65.5 kB"), (3_268_000, "3.27 MB"), (2.5e9, "2.50 GB")],
)
def test_a_size_has_three_digits_and_the_unit_that_suits_it(nbytes, text):
    assert size(nbytes) == text


def test_a_summary_has_every_figure_of_the_run():
    run = Run(
        tasks=1200,
        seconds=0.6,
        executors=33,
        becomes=44,
        invocations=55,
        round_trips=6_600,
        bytes_sent=7_700,
        bytes_received=880,
        where="the moon",
    )
    assert summary(run).splitlines() == [
        "ran on       the moon",
        "tasks        1,200",
        "executors    33",
        "becomes      44",
        "invocations  55",
        "store        6,600 round trips, 7.70 kB sent, 880 B received",
        "wall time    600 ms, 500 us a task",
    ]


def test_a_run_that_asked_no_store_says_so():
    assert "store        not used" in summary(Run(tasks=1, executors=1))


def test_requests_to_a_store_in_memory_are_not_called_round_trips():
    assert "store        12 requests in memory; nothing was sent" in summary(Run(tasks=1, round_trips=12))


def test_a_run_of_no_tasks_has_no_time_a_task():
    assert summary(Run(seconds=1e-3)).endswith("wall time    1.00 ms")
