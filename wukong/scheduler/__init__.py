"""From a graph to its results: taking it, launching it, watching it."""
