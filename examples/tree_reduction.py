"""A tree reduction, here and through a server: blocks of random numbers, added in pairs until one is left.

    python examples/tree_reduction.py [BLOCKS]

BLOCKS is a power of two (128). The second time executors share no memory, and meet in an embedded Valkey: of the two
that bring the halves of a sum, the store tells one to go on, which has its own half at hand. How much of what was made
went into the store is printed. The results are held against plain NumPy.
Needs ``pip install 'wukong[demo]'``.
"""

import sys

import numpy as np
from dask import delayed
from timing import by_wukong_and_dask, timed

import wukong
from wukong.diagnostics.summary import size, summary

LENGTH = 100_000


def block(seed: int) -> np.ndarray:
    """Return one block of normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=LENGTH)


def main(blocks: int = 128) -> None:
    """Build the tree, compute, check, and say what the run was like."""
    print(f"Tree of {blocks} blocks of {size(LENGTH * 8)}")
    level = [delayed(block)(seed) for seed in range(blocks)]
    while len(level) > 1:
        level = [delayed(np.add)(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    (here,) = by_wukong_and_dask(level[0])

    print("\nAgain, with every value and edge through a server of its own")
    with timed("Wukong"):
        (through,) = wukong.compute(level[0], store="embedded")
    print(summary(wukong.last_run()))
    made = (2 * blocks - 1) * LENGTH * 8
    print(f"{'values':<12} {size(made)} made, {wukong.last_run().bytes_sent / made:.0%} of it sent to the store")

    with timed("NumPy"):
        expected = sum(block(seed) for seed in range(blocks))
    for found in (here, through):
        assert np.allclose(found, expected, rtol=0, atol=1e-12 * blocks), "the sum differs from NumPy's"
    print(f"{'checked':<12} both are NumPy's sum")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
