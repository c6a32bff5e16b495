"""Unpicklable objects are named with the path to the culprit."""

import threading
from functools import partial
from operator import add
from typing import Any

import pytest

from wukong.errors import CannotTravel
from wukong.serialize import loads
from wukong.travel import check_travels

LOCK = threading.Lock()


class Slotted:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def method(self) -> None:
        """Do nothing."""


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def closing_over(captured: Any) -> Any:
    return lambda: captured


CASES = [
    (LOCK, "_thread.lock"),
    ([1, {"k": LOCK}], "[1] -> ['k'] -> _thread.lock"),
    (Plain(a=1, lock=LOCK), ".lock -> _thread.lock"),
    (Slotted(Plain(lock=LOCK)), ".inner -> .lock -> _thread.lock"),
    (Slotted(LOCK).method, ".__self__ -> .inner -> _thread.lock"),
    (closing_over(LOCK), "closure captured -> _thread.lock"),
    (lambda x=LOCK: x, "default 0 -> _thread.lock"),
    (partial(add, Plain(lock=LOCK)), ".args[0] -> .lock -> _thread.lock"),
    (partial(add, y=LOCK), ".keywords['y'] -> _thread.lock"),
    ((i for i in ()), "builtins.generator"),
]


@pytest.mark.parametrize(("obj", "path"), CASES, ids=[path for _, path in CASES])
def test_the_path_leads_to_the_culprit(obj: Any, path: str) -> None:
    with pytest.raises(CannotTravel) as refusal:
        check_travels(obj, "task 'a': argument 1")
    assert str(refusal.value).startswith(
        f"task 'a': argument 1 cannot be sent to an executor: {path} cannot be pickled"
    )


def test_an_object_that_contains_itself_does_not_hang_the_search() -> None:
    loop: list[Any] = [LOCK]
    loop.insert(0, loop)
    with pytest.raises(CannotTravel, match=r"\[1\] -> _thread.lock"):
        check_travels(loop, "this")


def test_what_travels_comes_as_its_frame() -> None:
    assert loads(bytes(check_travels({"a": 1}, "this"))) == {"a": 1}
