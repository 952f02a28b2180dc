"""Which workers may aggregate: tasks that use results of several partitions run on these workers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

STAGES_OF_PARTITIONS = frozenset(
    f"dfmr_{stage}"
    for stage in (
        "rows",
        "read_pilot",
        "open_pilot",
        "pilot_rows",
        "pilot_data",
        "fit_pilot",
        "fit_partition",
        "fit_candidates",
        "measure_partition",
        "sample_partition",
        "count_sources",
        "split_partition",
        "route_rows",
        "merge_rows",
    )
)
"""Stages whose tasks use the rows of one partition only, and run on any worker. All other tasks of the package,
those of new stages included, run on trusted workers."""


@dataclass(frozen=True)
class TrustedWorkers:
    """Workers by address or name, or by a resource that they offer.

    Attributes
    ----------
    workers : tuple of str
        Addresses or names; empty if the workers are given by resources.
    resources : tuple of (str, float)
        Names of resources, and how much of each a task of the aggregation takes.
    places : tuple of str
        Addresses of the workers, since tasks can be sent to addresses only. Empty before :meth:`found_on`, and if the
        workers are given by resources.
    """

    workers: tuple[str, ...] = ()
    resources: tuple[tuple[str, float], ...] = ()
    places: tuple[str, ...] = ()

    @classmethod
    def of(cls, trusted_workers: Any) -> TrustedWorkers:
        """The value of a user's ``trusted_workers``, checked as far as possible without a cluster.

        Raises
        ------
        TypeError, ValueError
            If it is neither names of workers nor a mapping of resources.
        """
        expected = (
            "trusted_workers must be None, addresses or names of workers, or a mapping of a resource to the amount "
            f"that a task takes, like {{'TRUSTED': 1}}; got {trusted_workers!r}."
        )
        if isinstance(trusted_workers, Mapping):
            amounts = list(trusted_workers.values())
            numbers = all(
                isinstance(n, (int, float)) and not isinstance(n, bool) and 0 < n < float("inf")
                for n in amounts
            )
            if not amounts or not numbers or not all(isinstance(k, str) for k in trusted_workers):
                raise ValueError(expected)
            return cls(resources=tuple((k, float(n)) for k, n in trusted_workers.items()))
        if isinstance(trusted_workers, (str, int)) and not isinstance(trusted_workers, bool):
            trusted_workers = [trusted_workers]
        if not isinstance(trusted_workers, (Sequence, set, frozenset)):
            raise TypeError(expected)
        names = [w for w in trusted_workers if isinstance(w, (str, int)) and w is not True]
        if not names or len(names) < len(trusted_workers):
            raise ValueError(expected)
        return cls(workers=tuple(map(str, names)))

    def __str__(self) -> str:
        return ", ".join(self.workers) or ", ".join(f"{k}={n:g}" for k, n in self.resources)

    def among(self, workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """The trusted ones of a scheduler's workers, by address."""
        return {
            address: worker
            for address, worker in workers.items()
            if (
                address in self.workers or str(worker["name"]) in self.workers
                if self.workers
                else all(worker["resources"].get(k, 0) >= n for k, n in self.resources)
            )
        }

    def found_on(self, client: Any) -> TrustedWorkers:
        """The same with addresses, if every named worker is connected, or a worker offers the resources.

        Raises
        ------
        ValueError
            If that is not so; the message lists the workers or resources that there are.
        """
        if client is None:
            raise ValueError(
                f"trusted_workers names workers of a cluster ({self}), and no distributed Client is active. "
                "Create one, or leave trusted_workers=None: a local scheduler runs everything in this process."
            )
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if self.workers:
            known = {*workers, *(str(worker["name"]) for worker in workers.values())}
            missing = [name for name in self.workers if name not in known]
            if missing:
                there = ", ".join(f"{w['name']} ({address})" for address, w in workers.items())
                raise ValueError(
                    f"trusted_workers must be workers of {client.scheduler.address}; {missing} are not among "
                    f"its {len(workers)}: {there or 'none'}."
                )
            return replace(self, places=tuple(self.among(workers)))
        if not self.among(workers):
            offers = {k: n for w in workers.values() for k, n in w["resources"].items()}
            raise ValueError(
                f"trusted_workers asks for {dict(self.resources)}, and none of the {len(workers)} workers offers "
                f"that; resources there are: {offers or 'none'}. Start workers with --resources."
            )
        return self

    def annotations(self) -> dict[str, Any]:
        """Keyword arguments of :func:`dask.annotate` that restrict tasks of the aggregation to these workers."""
        if self.resources:
            return {"resources": _ForAggregation(dict(self.resources), {})}
        return {"workers": _ForAggregation(list(self.places), []), "allow_other_workers": False}


@dataclass(frozen=True)
class _ForAggregation:
    """An annotation as a function of the key: a value for the aggregation's tasks, another for all others."""

    value: Any
    otherwise: Any

    def __call__(self, key: Any) -> Any:
        return self.value if is_aggregation(key) else self.otherwise


def is_aggregation(key: Any) -> bool:
    """Whether a task uses results of more than one partition."""
    name = key[0] if isinstance(key, tuple) else key
    stage = str(name).rpartition("-")[0]
    return stage.startswith("dfmr_") and stage not in STAGES_OF_PARTITIONS
