"""Wukong beside its peers, each in a process of its own, by turns: ``python -m benchmarks.peers``."""
