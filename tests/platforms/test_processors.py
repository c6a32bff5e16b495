"""How many processors there are for whom."""

import os

import pytest

from wukong.platforms.local import processors
from wukong.platforms.local.processors import THREAD_VARIABLES, threads_each, workers_here


def test_affinity_counts():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert workers_here() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (1.0, 1), (1.2, 2), (1000.0, None)])
def test_a_quota_counts_rounded_up(monkeypatch, quota, workers):
    monkeypatch.setattr(processors, "_quota_here", lambda: quota)
    here = len(os.sched_getaffinity(0))
    assert workers_here() == min(here, workers or here)


@pytest.mark.parametrize(("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_a_quota_of_the_second_version_is_read(tmp_path, text, quota):
    (tmp_path / "cpu.max").write_text(text)
    if quota is None:
        with pytest.raises(ValueError, match="max"):
            processors._quota(tmp_path, False)
    else:
        assert processors._quota(tmp_path, False) == quota


@pytest.mark.parametrize(("text", "quota"), [("250000\n", 2.5), ("-1\n", None)])
def test_a_quota_of_the_first_version_is_read(tmp_path, text, quota):
    (tmp_path / "cpu.cfs_quota_us").write_text(text)
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    if quota is None:
        with pytest.raises(ValueError, match="no quota"):
            processors._quota(tmp_path, True)
    else:
        assert processors._quota(tmp_path, True) == quota


def test_threads_of_libraries_are_limited_and_a_smaller_wish_is_kept():
    each = threads_each(4, {"OMP_NUM_THREADS": "2,3", "MKL_NUM_THREADS": "16", "NUMEXPR_NUM_THREADS": "many"})
    assert each == {**dict.fromkeys(THREAD_VARIABLES, "4"), "OMP_NUM_THREADS": "2,3"}
