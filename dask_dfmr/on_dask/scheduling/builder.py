"""A graph of tasks under construction, with keys that no other fit uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from dask.task_spec import GraphNode, List, Task, TaskRef

SPLIT_EVERY = 8
"""How many results one task of a tree combines."""


class _FreshTask(Task):
    """A task that is identified by its key alone.

    Dask hashes every graph that it is given. By default it hashes every argument of every task, which took the client
    longer than anything else.
    """

    __slots__ = ()

    def __dask_tokenize__(self) -> Any:
        return self.key


class GraphBuilder:
    """A dictionary of tasks under construction, with keys that name the stage and are fresh for every fit.

    Under the key of an earlier fit, a scheduler would answer with the error of that fit.
    """

    def __init__(self) -> None:
        self.token = uuid4().hex
        self.tasks: dict[Any, Any] = {}

    def add(self, stage: str, index: Any, function: Callable[..., Any], *args: Any) -> TaskRef:
        """Add one task; lists among the arguments may hold references.

        ``List(*a)`` would replace a list that holds one list by that list; so it is ``List(a)``.
        """
        key = (f"dfmr_{stage}-{self.token}", *(index if isinstance(index, tuple) else (index,)))
        self.tasks[key] = _FreshTask(
            key, function, *(List(a) if isinstance(a, list) else a for a in args)
        )
        return TaskRef(key)

    def renewed(self, refs: Sequence[TaskRef]) -> tuple[GraphBuilder, list[TaskRef]]:
        """The same tasks under fresh keys, since a scheduler answers for the old keys with their old errors.

        Tasks that this builder did not make keep their keys.
        """
        g = GraphBuilder()
        fresh: dict[Any, Any] = {
            key: (key[0].replace(self.token, g.token), *key[1:])
            for key in self.tasks
            if isinstance(key, tuple) and str(key[0]).endswith(self.token)
        }
        g.tasks = {
            fresh.get(key, key): task.substitute(fresh, key=fresh.get(key))
            if isinstance(task, GraphNode)
            else task
            for key, task in self.tasks.items()
        }
        return g, [TaskRef(fresh.get(ref.key, ref.key)) for ref in refs]

    def tree(
        self,
        stage: str,
        index: tuple[int, ...],
        function: Callable[..., Any],
        leaves: list[Any],
        split_every: int,
    ) -> Any:
        """Combine leaves ``split_every`` at a time, in a fixed shape, so that sums have the same bits anywhere."""
        level = 0
        while True:
            starts = range(0, len(leaves), split_every)
            groups = [leaves[start : start + split_every] for start in starts]
            leaves = [
                self.add(stage, (*index, level, i), function, group)
                for i, group in enumerate(groups)
            ]
            level += 1
            if len(leaves) == 1:
                return leaves[0]
