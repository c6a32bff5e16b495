"""Exceptions on their way between processes."""

import dataclasses
import threading

import pytest

from wukong import failures
from wukong.errors import TaskFailed


class CodedError(Exception):
    """Its constructor takes what it does not pass on."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class LockedError(Exception):
    def __init__(self, text, lock):
        super().__init__(text, lock)
        self.lock, self.text = lock, text


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    number: int


def raised(error, cause=None):
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def travelled(error):
    return failures.unpack(failures.pack(error))


def test_an_error_whose_constructor_takes_other_arguments_is_the_same_error_there():
    found = travelled(raised(CodedError(code=5)))
    assert (type(found), str(found), found.code) == (CodedError, "code 5", 5)


def test_what_of_an_error_cannot_travel_stays_behind():
    found = travelled(raised(LockedError("held", threading.Lock())))
    assert (type(found), found.text, found.args[0]) == (LockedError, "held", "held")
    assert "lock" in found.args[1]
    assert not hasattr(found, "lock")


def test_errors_that_let_nothing_be_set_travel():
    found = travelled(raised(FrozenError(4)))
    assert (type(found), found.number) == (FrozenError, 4)


def test_an_error_comes_with_the_one_it_was_raised_from():
    found = travelled(raised(ValueError("second"), raised(CodedError(code=1), KeyError("first"))))
    assert [type(found.__cause__), type(found.__cause__.__cause__)] == [CodedError, KeyError]
    assert found.__cause__.__cause__.__cause__ is None


def test_errors_raised_from_each_other_without_end_travel():
    one, two = ValueError(1), ValueError(2)
    one.__cause__, two.__cause__ = two, one
    assert travelled(one).__cause__.args == (2,)


def test_an_error_that_cannot_be_made_without_its_constructor_is_told_of():
    class OddError(Exception):
        def __new__(cls, *, text):
            return super().__new__(cls, text)

        def __init__(self, *, text):
            super().__init__(text)

    found = travelled(raised(OddError(text="odd one")))
    assert type(found) is TaskFailed
    assert "OddError: odd one" in str(found)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(2, "no"), ExceptionGroup("g", [ValueError(1)])])
def test_usual_errors_travel_with_the_text_of_where_they_were_raised(error):
    found = travelled(raised(error))
    assert (type(found), found.args) == (type(error), error.args) or isinstance(found, ExceptionGroup)
    assert found.__traceback__ is not None or "raised in process" in found.__notes__[-1]
