"""Frames of stored values."""

import math
import pickle
import sys
import types
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wukong import serialize
from wukong.errors import FrameError
from wukong.serialize import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert loads(bytes(dumps(value))) == value


def test_the_parts_of_a_frame_add_up_to_its_size() -> None:
    frame = dumps([np.arange(5), bytes(1000), np.ones((3, 3))])
    assert frame.nbytes == len(bytes(frame)) == sum(memoryview(part).nbytes for part in frame)


def test_dumping_an_array_copies_nothing() -> None:
    array = np.zeros(1000)
    frame = dumps({"a": array})
    array[0] = 5
    assert loads(bytes(frame))["a"][0] == 5


def test_arrays_loaded_from_bytes_are_writable_and_apart() -> None:
    stored = bytes(dumps(np.zeros(1000)))
    one, other = loads(stored), loads(stored)
    one += 1
    assert other.sum() == 0


def test_arrays_loaded_from_a_bytearray_are_views_of_it() -> None:
    received = bytearray(bytes(dumps([np.zeros(3, "i1"), np.zeros(1000)])))
    for array in loads(received):
        assert array.flags.writeable
        assert array.flags.aligned
        assert np.shares_memory(array, np.frombuffer(received, "u1"))


def test_read_only_arrays_stay_read_only() -> None:
    array = np.zeros(1000)
    array.flags.writeable = False
    assert not loads(bytearray(bytes(dumps(array)))).flags.writeable
    assert not loads(bytes(dumps(array))).flags.writeable


def test_arrays_that_are_not_contiguous_come_back_equal() -> None:
    array = np.arange(100).reshape(10, 10)[::2, ::3]
    np.testing.assert_array_equal(loads(bytes(dumps(array))), array)


def test_what_pickle_refuses_and_cloudpickle_takes_travels() -> None:
    factor = 3

    class Local:
        value = 4

    assert loads(bytes(dumps(lambda x: x * factor)))(2) == 6
    assert loads(bytes(dumps([Local()])))[0].value == 4


def test_what_is_defined_in_main_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    import __main__

    def double(x: int) -> int:
        return 2 * x

    double.__module__, double.__qualname__ = "__main__", "double"
    monkeypatch.setattr(__main__, "double", double, raising=False)
    stored = bytes(dumps([double]))
    monkeypatch.delattr(__main__, "double")
    assert loads(stored)[0](4) == 8


def test_what_is_defined_in_the_main_of_a_spawned_process_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__mp_main__")
    exec("def double(x): return 2 * x", main.__dict__)
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    try:
        as_value, as_function = bytes(dumps([main.double])), bytes(dumps(main.double, serialize.FUNCTION))
    finally:
        cloudpickle.unregister_pickle_by_value(main)
    monkeypatch.delitem(sys.modules, "__mp_main__")
    assert loads(as_value)[0](4) == loads(as_function)(4) == 8


@pytest.mark.parametrize("cut", [0, 3, 63, 64, -1])
def test_truncated_frames_are_refused(cut: int) -> None:
    stored = bytes(dumps([np.zeros(10), "x" * 100]))
    with pytest.raises(FrameError):
        loads(stored[:cut])


def test_foreign_overlong_and_other_frames_are_refused() -> None:
    stored = bytes(dumps(1))
    with pytest.raises(FrameError, match="not a frame"):
        loads(pickle.dumps([0] * 100))
    with pytest.raises(FrameError, match="were received"):
        loads(stored + b"\0")
    with pytest.raises(FrameError, match="version 9"):
        loads(stored[:4] + b"\x09" + stored[5:])
    with pytest.raises(FrameError, match="kind 0, but kind 1"):
        loads(stored, serialize.PLAN)


def test_a_frame_whose_lengths_do_not_add_up_is_refused() -> None:
    stored = bytearray(bytes(dumps(np.zeros(100))))
    stored[64] ^= 1
    with pytest.raises(FrameError, match="buffers end"):
        loads(stored)
    stored = bytearray(bytes(dumps("text")))
    stored[48] = 255
    with pytest.raises(FrameError, match="would end"):
        loads(stored)


def test_the_room_for_the_mac_is_empty_and_not_looked_at() -> None:
    stored = bytearray(bytes(dumps(math.pi)))
    assert stored[serialize.MAC] == bytes(32)
    stored[serialize.MAC] = bytes(range(32))
    assert loads(stored) == math.pi
