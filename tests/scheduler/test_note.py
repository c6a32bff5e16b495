"""The note of a job that goes from client to client, where it cannot be read."""

import sys
import types

import pytest

from wukong import serialize
from wukong.errors import AttachUnsupported
from wukong.scheduler.note import NAME, read
from wukong.storage.values.heap import HeapValueStore


def of_a_module_that_is_not_here(monkeypatch):
    module = types.ModuleType("elsewhere")
    exec("class Thing: pass", module.__dict__)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "elsewhere", module)
        return bytes(serialize.dumps(module.Thing()))


def of_which_the_end_is_missing(_):
    return bytes(serialize.dumps(list(range(100))))[:-20]


@pytest.mark.parametrize("frame_of", [of_a_module_that_is_not_here, of_which_the_end_is_missing])
def test_who_cannot_read_the_note_of_a_job_is_told_so_and_what_to_do(frame_of, monkeypatch):
    values = HeapValueStore()
    values.put(NAME, frame_of(monkeypatch))
    with pytest.raises(AttachUnsupported, match=r"elsewhere|truncated") as raised:
        read(values)
    assert "wukong clean" in str(raised.value)
    assert raised.value.__cause__ is not None
