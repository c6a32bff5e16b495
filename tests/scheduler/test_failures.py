"""What a failure says of the task that failed, wherever the task ran."""

from typing import Any

import pytest

import wukong


@pytest.mark.parametrize(
    "options",
    [{"granules": "inline"}, {"granules": "threads", "workers": 2}, {"store": "embedded"}],
    ids=["alone", "threads", "embedded"],
)
def test_the_member_of_a_fused_chain_that_failed_is_named(options: dict[str, Any]) -> None:
    graph = {"a": (int, 1), "b": (str, "a"), "c": (lambda text: text + 1, "b"), "d": (str, "c")}
    with pytest.raises(TypeError) as caught:
        wukong.compute(graph, keys="d", **options)
    assert caught.value.__notes__ == ["wukong: task 'c' failed, on the way c -> d"]


class Unmade:
    """Can be sent, but not made again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise LookupError("no such thing here")


def test_a_value_that_cannot_be_unpacked_is_named() -> None:
    with pytest.raises(LookupError) as caught:
        wukong.compute({"made": (Unmade,)}, keys="made", store="embedded")
    assert caught.value.__notes__ == ["wukong: the value of task 'made' cannot be unpacked here"]
