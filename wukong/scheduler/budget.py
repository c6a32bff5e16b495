"""The budget of a compute: executor time, after which nothing more begins. Not what a compute costs in money.

Executor time is the time that each worker is at it, added up: two that work for a second have used two seconds. It is
looked at often enough to be no more than about a hundredth late, and not by tasks: those at work go on to their end.
"""

from threading import Event, Thread
from time import monotonic
from typing import Final

from wukong.errors import BudgetSpent
from wukong.scheduler.course import Course

#: Seconds between two looks, at least and at most.
_OFTEN: Final = 0.002
_RARELY: Final = 0.05


class Budget:
    """Ends a compute when its budget is spent; a context manager around it.

    Parameters
    ----------
    course : Course
        Of the compute.
    seconds : float
        Of executor time.
    """

    def __init__(self, course: Course, seconds: float) -> None:
        self._course = course
        self._seconds = seconds
        self._over = Event()

    def __enter__(self) -> None:
        Thread(target=self._run, name="wukong-budget", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self) -> None:
        course, left = self._course, self._seconds
        began = looked = monotonic()
        pause = _OFTEN
        while not self._over.wait(pause):
            now = monotonic()
            working = max(course.working(), 1)
            left -= (now - looked) * working
            looked = now
            if left <= 0:
                course.end(self._spent(self._seconds - left, now - began))
                return
            pause = min(max(left / working / 2, _OFTEN), _RARELY)

    def _spent(self, spent: float, seconds: float) -> BudgetSpent:
        course = self._course
        done = course.done()
        error = BudgetSpent(
            f"the compute has used {spent:.3g} s of executor time in {seconds:.3g} s, and its budget is "
            f"{self._seconds:g} s: nothing more begins, and {done:,} of its {course.size:,} tasks are through, or more "
            "that workers had not told of yet; give it more with budget=, or ask for less"
        )
        error.budget, error.spent, error.tasks = self._seconds, spent, done
        return error
