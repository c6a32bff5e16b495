"""Limits of control groups are found wherever they stand above a process."""

import pytest

from wukong import cgroups


@pytest.fixture
def limits(tmp_path):
    """Write files, and a process's own list of groups; return the limits of memory that are found."""

    def find(own, **files):
        (tmp_path / "own").write_text(own)
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return cgroups.limits("memory", read, tmp_path, tmp_path / "own")

    return find


def read(group, first_version):
    return int((group / "limit").read_text()), first_version


def test_limits_of_the_second_version_are_found_all_the_way_up(limits):
    files = {"limit": "max", "a/limit": "5", "a/b/limit": "9", "c/limit": "1"}
    assert limits("0::/a/b\n", **files) == [(9, False), (5, False)]


def test_limits_of_the_first_version_are_those_of_the_controller(limits):
    files = {"memory/limit": "8", "memory/a/limit": "7", "a/limit": "1", "memory/b/limit": "1"}
    assert limits("4:memory,other:/a\n3:cpu:/b\n", **files) == [(7, True), (8, True)]


def test_where_only_the_root_is_to_be_seen_it_counts(limits):
    assert limits("0::/docker/of/the/host\n", limit="6") == [(6, False)]


def test_where_there_are_no_groups_there_are_no_limits(tmp_path):
    assert cgroups.limits("memory", read, tmp_path, tmp_path / "nothing") == []
