"""Programs run their calls, drop what nobody needs, and tell whose call failed."""

import weakref
from typing import Any

import pytest

from wukong.plan.program import PASS, Call, Program, execute, failed_member


def show(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return args, kwargs


def test_a_program_without_calls_passes_its_operand_on() -> None:
    assert execute(PASS, [], [None]) is None


def test_one_call_on_the_whole_row_is_direct() -> None:
    assert Program([Call(3, (0, 1))], 2).direct == 3
    assert Program([Call(3, (1, 0))], 2).direct == -1
    assert Program([Call(3, (0, 1), ("a",))], 2).direct == -1


def test_arguments_are_operands_results_and_keywords() -> None:
    calls = [Call(0, (1,)), Call(0, (~0, 0, 2, ~0), ("a", "b"))]
    first = ((20,), {})
    assert execute(Program(calls, 3), [show], [10, 20, 30]) == ((first, 10), {"a": 30, "b": first})


def test_what_no_later_call_needs_is_dropped_before_the_next_call() -> None:
    class Value:
        pass

    alive: list[list[bool]] = []
    made: list[weakref.ref[Any]] = []

    def make(*_: Any) -> Value:
        alive.append([ref() is not None for ref in made])
        value = Value()
        made.append(weakref.ref(value))
        return value

    operand = make()
    # c0(operand), c1(c0), c2(c1), c3(c0, c2)
    program = Program([Call(0, (0,)), Call(0, (~0,)), Call(0, (~1,)), Call(0, (~0, ~2))], 1)
    operands = [operand]
    del operand
    execute(program, [make], operands)
    assert alive == [[], [True], [False, True], [False, True, True], [False, True, False, True]]


@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_the_member_whose_call_raised_is_known(culprit: int) -> None:
    def step(x: int) -> int:
        if x == culprit:
            raise KeyboardInterrupt
        return x + 1

    program = Program([Call(0, (0,), (), 0), Call(0, (~0,), (), 5), Call(0, (~1,), (), 7)], 1)
    with pytest.raises(KeyboardInterrupt) as failure:
        execute(program, [step], [0])
    assert failed_member(program, failure.value) == (0, 5, 7)[culprit]


def test_a_program_that_fails_within_another_one_does_not_confuse_them() -> None:
    def fail(_: Any) -> None:
        raise ArithmeticError

    inner = Program([Call(0, (0,), (), 0), Call(1, (~0,), (), 1)], 1)
    outer = Program([Call(1, (0,), (), 3), Call(0, (~0,), (), 4)], 1)
    with pytest.raises(ArithmeticError) as failure:
        execute(outer, [lambda x: execute(inner, [show, fail], [x]), show], [1])
    assert failed_member(outer, failure.value) == 4
