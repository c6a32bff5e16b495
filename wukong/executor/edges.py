"""The out-edges of a finished task as its children's shards are told of them: in which order, and what to send back."""

from wukong.executor.context import Context
from wukong.executor.shelf import Shelf
from wukong.protocol import messages as m

#: Children with more inputs than this ask for them after the claim, not with every edge that may complete them.
_WANTED = 64


def out_edges(task: int, context: Context, shelf: Shelf) -> tuple[m.Edge, ...]:
    """Return the out-edges of a task, the child with most bytes at hand, then on the longest path, first.

    Parameters
    ----------
    task : int
        The task that has run.
    context : Context
        The job and the place.
    shelf : Shelf
        The values at hand: a child wants only the others.
    """
    plan, values = context.plan, shelf.values
    edges = list(plan.edges(task))
    if len(edges) > 1:
        sizes = shelf.sizes

        def preference(edge: tuple[int, int]) -> tuple[int, int, int]:
            child = edge[0]
            if not plan.loaded(child):
                return (0, 0, child)
            near = sum(sizes.get(p, 0) for p in plan.inputs(child)) if edge[1] <= _WANTED else 0
            return (-near, -plan.height(child), child)

        edges.sort(key=preference)
    settled = [
        m.Edge(child, indegree, tuple([p for p in plan.inputs(child) if p != task and p not in values]))
        if 1 < indegree <= _WANTED and plan.loaded(child)
        else m.Edge(child, indegree)
        for child, indegree in edges
    ]
    belongs = context.belongs
    if belongs is not None:
        settled = [edge if belongs(edge.child) else edge._replace(wanted=None) for edge in settled]
    if plan.is_output(task):
        settled.append(m.Edge(m.CLIENT, len(plan.outputs)))
    return tuple(settled)
