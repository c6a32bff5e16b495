"""An ensemble of support vector machines that reads handwritten digits: members are trained as tasks, and vote.

    python examples/svc_ensemble.py [MEMBERS]

Each of the MEMBERS (48) learns from a bootstrap sample of scikit-learn's digits, by itself, and says what it takes each
digit of the test set for; the votes are counted. The second time members are futures, heard as they come, and those
that can change no vote any more are called off. The votes are held against those of members trained one after the
other, and the ensemble against one machine that saw all. Needs ``pip install 'wukong[demo]'``.
"""

import sys
from functools import partial

import numpy as np
from dask import delayed
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from timing import by_wukong_and_dask, timed

import wukong


def opinion(images: np.ndarray, digits: np.ndarray, unseen: np.ndarray, seed: int) -> np.ndarray:
    """Train a member on a bootstrap sample and return what it takes each of the unseen images for."""
    sample = np.random.default_rng(seed).integers(len(images), size=len(images))
    return SVC(gamma=0.001, C=10).fit(images[sample], digits[sample]).predict(unseen)


def vote(opinions: list[np.ndarray]) -> np.ndarray:
    """Return the digit that most members took each image for."""
    return np.stack([np.sum(np.array(opinions) == digit, axis=0) for digit in range(10)]).argmax(axis=0)


def main(members: int = 48) -> None:
    """Train, vote, check, and say what the run was like."""
    images, unseen, digits, truth = train_test_split(*load_digits(return_X_y=True), test_size=0.25, random_state=0)
    print(f"Ensemble of {members} support vector machines on {len(images):,} digits, asked about {len(unseen)} others")

    given = [delayed(each) for each in (images, digits, unseen)]
    opinions = [delayed(opinion)(*given, seed) for seed in range(members)]
    (found,) = by_wukong_and_dask(delayed(vote)(opinions))

    print("\nAgain with futures, until every vote is settled")
    votes = np.zeros((len(unseen), 10), dtype=int)
    with wukong.Client() as client, timed("Wukong"):
        futures = client.map(partial(opinion, images, digits, unseen), range(members))
        for heard, future in enumerate(wukong.as_completed(futures), 1):
            votes[np.arange(len(unseen)), future.result()] += 1
            second, first = np.sort(votes)[:, -2:].T
            if np.all(first - second > members - heard):
                client.cancel(futures)
                break

    with timed("a plain loop"):
        expected = vote([opinion(images, digits, unseen, seed) for seed in range(members)])
    assert np.array_equal(found, expected), "the votes differ from those of a plain loop"
    assert np.array_equal(votes.argmax(axis=1), expected), "the votes of the futures differ"
    single = SVC(gamma=0.001, C=10).fit(images, digits).score(unseen, truth)
    ensemble = np.mean(found == truth)
    assert ensemble > single - 0.01, f"the ensemble reads {ensemble:.1%} right, a single machine {single:.1%}"
    print(f"{'checked':<12} both votes are those of a plain loop, the second after {heard} of {members} members")
    print(f"{'found':<12} the ensemble reads {ensemble:.1%} right, a single machine {single:.1%}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
