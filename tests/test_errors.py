import inspect
import pickle

import pytest

from wukong import errors

EVERY = [kind for kind in vars(errors).values() if inspect.isclass(kind)]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_its_message_and_notes(kind):
    error = kind("what, where and why")
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__notes__) == (kind, "what, where and why", ["a note"])


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_the_tree_drawn_at_the_top_has_every_error_under_its_parent_with_its_builtin(kind):
    lines = [line for line in errors.__doc__.splitlines() if kind.__name__ in line.replace("+--", " ").split()]
    assert len(lines) == 1
    builtins = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins" and base is not Exception]
    drawn = lines[0].partition("(")[2].partition(")")[0]
    assert ([drawn] if drawn else []) == builtins
    assert issubclass(kind, errors.WukongError)
