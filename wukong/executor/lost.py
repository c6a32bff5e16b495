"""What is said of tasks that an executor gives up."""

from typing import Any

from wukong.errors import TaskLost


def lost(key: Any, attempts: int, once: bool) -> TaskLost:
    """Return the error of a task of which no executor has come back with an outcome."""
    if once:
        return TaskLost(
            f"task {key!r} may run only once, and the executor that was given it never came back with an outcome: "
            "it may have run, or not. Find out which, and start it again if it has not."
        )
    return TaskLost(
        f"task {key!r} was started {attempts} times and its executor never came back with an outcome; it may exceed "
        "the memory or the time of its executor, or kill it"
    )


def gone(key: Any) -> TaskLost:
    """Return the error of a task that may run only once, and whose value is nowhere any more."""
    return TaskLost(
        f"the value of task {key!r} is lost, and the task may run only once. Store the value where it is safe, or "
        "allow the task to run again."
    )
