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


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_quotas_of_the_second_version_are_found_all_the_way_up(tmp_path):
    write(tmp_path / "own", "0::/a/b\n")
    write(tmp_path / "a/b/cpu.max", "max 100000\n")
    write(tmp_path / "a/cpu.max", "150000 100000\n")
    assert processors._quotas(tmp_path, tmp_path / "own") == [1.5]


def test_quotas_of_the_first_version_are_found(tmp_path):
    write(tmp_path / "own", "4:cpu,cpuacct:/a\n3:memory:/a\n0::/\n")
    write(tmp_path / "cpu/a/cpu.cfs_quota_us", "250000\n")
    write(tmp_path / "cpu/a/cpu.cfs_period_us", "100000\n")
    write(tmp_path / "cpu/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "cpu/cpu.cfs_period_us", "100000\n")
    assert processors._quotas(tmp_path, tmp_path / "own") == [2.5]


def test_where_there_are_no_cgroups_there_are_no_quotas(tmp_path):
    assert processors._quotas(tmp_path, tmp_path / "nothing") == []


def test_threads_of_libraries_are_limited_and_a_smaller_wish_is_kept():
    each = threads_each(4, {"OMP_NUM_THREADS": "2,3", "MKL_NUM_THREADS": "16", "NUMEXPR_NUM_THREADS": "many"})
    assert each == {**dict.fromkeys(THREAD_VARIABLES, "4"), "OMP_NUM_THREADS": "2,3"}
