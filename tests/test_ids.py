"""Names that nobody else will ever give."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from wukong.ids import new_job, new_nonce


def test_names_of_executors_differ_between_threads() -> None:
    with ThreadPoolExecutor(4) as threads:
        names = [name for some in threads.map(lambda _: [new_nonce() for _ in range(500)], range(8)) for name in some]
    assert len(set(names)) == len(names)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_names_of_executors_and_jobs_differ_after_a_fork() -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, f"{new_nonce()} {new_job()}".encode())
        os._exit(0)
    nonce, job = new_nonce(), new_job()
    assert os.waitpid(child, 0)[1] == 0
    other, another = os.read(ours, 1000).decode().split()
    for end in (ours, theirs):
        os.close(end)
    assert other[:16] != nonce[:16]
    assert another != job
