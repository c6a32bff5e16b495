"""A client for each test, and a check that it leaves nothing."""

import dask
import pytest

import wukong


@pytest.fixture
def client():
    """A client of two workers that Dask computes with."""
    with wukong.Client(workers=2) as client:
        yield client
    assert dask.config.get("scheduler", None) is None
