"""The directory where values go that a store refuses: others may remove it; it has nothing of jobs that are over."""

import shutil

import numpy as np
import pytest

import wukong
from tests.servers import free_ports, started
from wukong.errors import StoreUnavailable
from wukong.scheduler.launch import Client

#: More than the server has room for.
COUNT = 2_000_000


def test_a_client_whose_directory_was_removed_spills_to_another(tmp_path):
    (port,) = free_ports(1)
    url = f"redis://127.0.0.1:{port}?spill={tmp_path}"
    with started(shutil.which("redis-server"), port, "--maxmemory", "12mb"):
        for _ in range(2):
            value = wukong.get({"a": (np.arange, COUNT), "b": (np.sum, "a")}, ["a", "b"], store=url, granules="threads")
            assert value[1] == sum(range(COUNT))
            assert "went to files" in str(wukong.last_run())
            (directory,) = tmp_path.iterdir()
            assert list(directory.iterdir()) == []
            shutil.rmtree(directory)


def test_what_was_spilled_goes_though_the_records_of_the_job_cannot_be_removed(tmp_path, monkeypatch):
    def refuse(_):
        raise StoreUnavailable("it is away")

    monkeypatch.setattr(Client, "release", refuse)
    (port,) = free_ports(1)
    url = f"redis://127.0.0.1:{port}?spill={tmp_path}"
    with started(shutil.which("redis-server"), port, "--maxmemory", "12mb"):
        with pytest.raises(StoreUnavailable, match="it is away"):
            wukong.get({"a": (np.arange, COUNT), "b": (np.sum, "a")}, ["a", "b"], store=url, granules="threads")
        (directory,) = tmp_path.iterdir()
        assert list(directory.iterdir()) == []
        shutil.rmtree(directory)
