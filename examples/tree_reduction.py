"""A tree reduction through a server of its own: blocks of random numbers, added in pairs until one is left.

    python examples/tree_reduction.py

Executors meet in an embedded Valkey: of the two that bring the halves of a sum, the store tells one to go on, which has
its own half at hand. How much of what was made went into the store is printed. The result is held against plain NumPy.
Needs ``pip install 'wukong[demo]'``.
"""

import numpy as np
from dask import delayed

import wukong
from wukong.diagnostics.summary import size, summary

BLOCKS, LENGTH = 128, 100_000


def block(seed: int) -> np.ndarray:
    """Return one block of normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=LENGTH)


def main() -> None:
    """Build the tree, compute, check, and say what the run was like."""
    level = [delayed(block)(seed) for seed in range(BLOCKS)]
    while len(level) > 1:
        level = [delayed(np.add)(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    (total,) = wukong.compute(level[0], store="embedded")

    expected = sum(block(seed) for seed in range(BLOCKS))
    assert np.allclose(total, expected), "the sum differs from NumPy's"

    print(f"\nTree of {BLOCKS} blocks of {size(LENGTH * 8)} through the embedded server; equal to NumPy's sum")
    run = wukong.last_run()
    made = (2 * BLOCKS - 1) * LENGTH * 8
    print(summary(run))
    print(f"{'values':<12} {size(made)} made, {run.bytes_sent / made:.0%} of it sent to the store")


if __name__ == "__main__":
    main()
