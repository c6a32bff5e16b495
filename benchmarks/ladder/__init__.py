"""From stateless tasks to the whole of Wukong, one rule at a time: ``python -m benchmarks.ladder``."""
