"""Who aggregates: the workers that are trusted, and what passes to them from the others."""

from __future__ import annotations

import dask
import distributed
import numpy as np
import pytest
from dask.utils import key_split
from distributed.diagnostics.plugin import SchedulerPlugin

from dask_dfmr import ClusterError, GaussianMixture, PartitionWarning, dfmr, select_components
from dask_dfmr.on_dask import tasks
from dask_dfmr.on_dask.scheduling.trusted_workers import (
    STAGES_OF_PARTITIONS,
    TrustedWorkers,
    is_aggregation,
)
from dask_dfmr.untrusted import MAX_TEXT, not_plain, plain_mapping
from tests.data_makers import Reader, broken, make_ddf, make_frame, same_bits, short
from tests.killers import kill, killing_at, mortal_cluster, pids
from tests.test_by_column import make_x

M = 8


def make(**kwargs):
    return GaussianMixture(2, **{"random_state": 0} | kwargs)


class Recorder(SchedulerPlugin):
    """Where every task was computed, and which tasks could have been computed anywhere."""

    name = "recorder"

    def __init__(self, cluster):
        self.cluster, self.where, self.free = cluster, [], set()

    def transition(self, key, start, finish, *args, worker=None, **kwargs):
        if start == "processing" and finish == "memory":
            self.where.append((key_split(key), key, worker))
            task = self.cluster.scheduler.tasks[key]
            if not task.worker_restrictions and not task.resource_restrictions:
                self.free.add(key_split(key))


@pytest.fixture
def recorder(cluster, client):
    found = Recorder(cluster)
    cluster.scheduler.add_plugin(found)
    yield found
    cluster.scheduler.remove_plugin(found.name)


@pytest.fixture(scope="module")
def undisturbed():
    with dask.config.set(scheduler="synchronous"):
        return make().fit(make_ddf(M)).mixture_


@pytest.fixture(scope="module")
def one_partition_less():
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.warns(PartitionWarning, match="1 of 8"),
    ):
        return make().fit(make_ddf(M, Reader({3: broken})))


def addresses(client):
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


class TestAggregationIsPinned:
    def check(self, recorder, trusted, expected):
        """That the stages of the aggregation ran there alone, and those of partitions elsewhere too."""
        pinned = {(stage, where) for stage, key, where in recorder.where if is_aggregation(key)}
        assert expected <= {stage for stage, _ in pinned}
        assert {where for _, where in pinned} == {trusted}
        assert recorder.free
        assert not any(is_aggregation(f"{stage}-0f") for stage in recorder.free)

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.smoke
    def test_by_address(self, client, recorder, undisturbed, which):
        trusted = addresses(client)[which]
        gm = make(trusted_workers=[trusted]).fit(make_ddf(M))
        stages = ("pilot_scale", "shortlist", "stack_estimates", "l2_tile", "judge", "reduce")
        self.check(recorder, trusted, {f"dfmr_{stage}" for stage in stages})
        assert same_bits(gm.mixture_, undisturbed)

    def test_by_name(self, client, recorder, undisturbed):
        workers = client.scheduler_info(n_workers=-1)["workers"]
        (trusted,) = (address for address, worker in workers.items() if worker["name"] == 1)
        gm = make(trusted_workers="1").fit(make_ddf(M))
        self.check(recorder, trusted, {"dfmr_judge"})
        assert same_bits(gm.mixture_, undisturbed)

    def test_passes_and_sums_of_a_refinement(self, client, recorder):
        trusted = addresses(client)[1]
        make(trusted_workers=[trusted], refine=2).fit(make_ddf(M))
        self.check(recorder, trusted, {"dfmr_add_measurements", "dfmr_mixtures"})

    def test_fresh_starts_and_an_update(self, client, recorder):
        trusted = addresses(client)[1]
        gm = make(trusted_workers=[trusted], n_partitions=M, check_optimum=1, init_params="kmeans")
        gm.fit(make_ddf(M).compute())
        recorder.where.clear()
        gm.update(make_frame(9))
        self.check(recorder, trusted, {"dfmr_message"})

    def test_a_selection(self, client, recorder):
        trusted = addresses(client)[0]
        select_components(
            GaussianMixture(random_state=0, trusted_workers=[trusted]), make_ddf(M), [1, 2]
        )
        self.check(recorder, trusted, {"dfmr_aggregate_candidate", "dfmr_reduce_candidate"})

    def test_machines_by_a_column(self, client, recorder):
        trusted = addresses(client)[0]
        make(trusted_workers=[trusted], source="sensor").fit(make_x())
        self.check(recorder, trusted, {"dfmr_judge"})

    @pytest.mark.slow  # waits for restarts of workers
    def test_by_a_resource_that_survives_a_restart(self, undisturbed):
        """The only trusted worker is killed in the middle of the aggregation, and comes back."""
        with (
            mortal_cluster(1, resources={"TRUSTED": 1}) as found,
            distributed.Client(found) as client,
        ):
            options = {k: v for k, v in found.new_spec["options"].items() if k != "resources"}
            found.new_spec = found.new_spec | {"options": options}
            found.scale(2)
            client.wait_for_workers(2, timeout=60)
            recorder = Recorder(found)
            found.scheduler.add_plugin(recorder)
            with killing_at(found, ["judge"]) as killer:
                gm = make(trusted_workers={"TRUSTED": 1}).fit(make_ddf(M))
            workers = client.scheduler_info(n_workers=-1)["workers"]
            plain = {address for address, w in workers.items() if not w["resources"]}
            assert killer.killed
        assert len(plain) == 1
        pinned = {where for _, key, where in recorder.where if is_aggregation(key)}
        assert len(pinned) == 2  # before and after the restart
        assert not pinned & plain
        assert same_bits(gm.mixture_, undisturbed)

    @pytest.mark.slow
    def test_a_trusted_worker_that_is_restarted_at_another_address(self):
        """It has its name still, but what was sent to the old address would wait for ever."""
        with mortal_cluster(2) as found, distributed.Client(found) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            (trusted,) = (address for address, w in workers.items() if w["name"] == 1)
            killer = KillOnce(found, trusted)
            found.scheduler.add_plugin(killer)
            with pytest.raises(ClusterError, match=r"were restarted during the fit.*a resource"):
                make(trusted_workers=["1"]).fit(make_ddf(M))
            assert killer.done


class KillOnce(SchedulerPlugin):
    """Kills a worker as it gets its first tile."""

    name = "kill-once"

    def __init__(self, cluster, address):
        self.cluster, self.address, self.done = cluster, address, False

    def transition(self, key, start, finish, *args, **kwargs):
        if not self.done and finish == "processing" and key_split(key) == "dfmr_l2_tile":
            self.done = True
            kill(pids(self.cluster)[self.address])


class TestChecks:
    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (
                ["tcp://127.0.0.1:1"],
                ValueError,
                r"'tcp://127.0.0.1:1'\] are not among its 2: [01] \(",
            ),
            ("nobody", ValueError, "'nobody'"),
            ({"TRUSTED": 1}, ValueError, "none of the 2 workers offers that; .* none. Start"),
            ([], ValueError, "addresses or names"),
            ({}, ValueError, "addresses or names"),
            ({"TRUSTED": 0}, ValueError, "addresses or names"),
            ({"TRUSTED": "1"}, ValueError, "addresses or names"),
            ([None], ValueError, "addresses or names"),
            (True, TypeError, "addresses or names"),
            (1.5, TypeError, "addresses or names"),
        ],
    )
    @pytest.mark.smoke
    def test_before_anything_is_submitted(self, client, recorder, value, error, message):
        with pytest.raises(error, match=message):
            make(trusted_workers=value).fit(make_ddf(M))
        assert recorder.where == []

    def test_no_client(self):
        with pytest.raises(ValueError, match="no distributed Client is active"):
            make(trusted_workers=["tcp://127.0.0.1:1"]).fit(make_ddf(M))

    def test_a_lazy_graph(self, client):
        with pytest.raises(ValueError, match=r"must be None for a lazy graph.*client\.compute"):
            dfmr(GaussianMixture(2, trusted_workers=addresses(client)), make_ddf(M))

    def test_what_the_refusal_proposes_works(self, client, recorder, undisturbed):
        trusted = addresses(client)[0]
        found = client.compute(
            dfmr(GaussianMixture(2, random_state=0), make_ddf(M)), workers=[trusted]
        ).result()
        assert {where for _, _, where in recorder.where} == {trusted}
        assert same_bits(found.mixture, undisturbed)

    @pytest.mark.smoke
    def test_new_stages_are_pinned_unless_they_are_listed(self):
        assert is_aggregation(("dfmr_something_new-0f", 3))
        assert not is_aggregation(("dfmr_fit_partition-0f", 3))
        assert not is_aggregation("read_parquet-0f")
        assert len(STAGES_OF_PARTITIONS) == 14

    def test_how_it_reads(self):
        assert str(TrustedWorkers.of(["a", 1])) == "a, 1"
        assert str(TrustedWorkers.of({"TRUSTED": 1})) == "TRUSTED=1"


# -- what passes from fits to the aggregation -------------------------------------------------------


def kinds(value, found):
    """The types of all values inside of a value."""
    found.add(value.dtype.kind if isinstance(value, np.ndarray) else type(value))
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) is str
            kinds(item, found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            kinds(item, found)
    return found


class TestMessages:
    @pytest.mark.parametrize("covariance_type", ["full", "diag", "tied", "spherical"])
    def test_are_numbers_texts_and_numeric_arrays(self, covariance_type, monkeypatch):
        """Everything that a fit task returned, good or bad."""
        sent, bad = [], {2: broken, 5: short}
        stack = tasks.as_plain
        monkeypatch.setattr(tasks, "as_plain", lambda m, i=None: sent.append(m) or stack(m, i))
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.warns(PartitionWarning, match="2 of 8"),
        ):
            make(covariance_type=covariance_type).fit(make_ddf(M, Reader(bad)))
        assert len(sent) >= 2 * M
        found = set().union(*(kinds(message, set()) for message in sent))
        assert found <= {dict, str, int, float, type(None), tuple, "f"}
        assert all(not_plain(message) is None for message in sent)

    def test_of_several_candidates_too(self, monkeypatch):
        sent = []
        each = tasks.as_plain_each
        monkeypatch.setattr(
            tasks, "as_plain_each", lambda m, n, i=None: sent.append(m) or each(m, n, i)
        )
        with dask.config.set(scheduler="synchronous"):
            select_components(GaussianMixture(random_state=0), make_ddf(M), [1, 2])
        assert len(sent) >= M
        found = set().union(*(kinds(message, set()) for message in sent))
        assert found <= {list, dict, str, int, float, type(None), tuple, "f"}

    @pytest.mark.parametrize(
        "message",
        [
            None,
            object(),
            [1, 2],
            {},
            {1: 2},
            {"n_samples": object()},
            {"n_samples": "200"},
            {"n_samples": True, "outcome": "odd"},
            {"n_samples": 200, "weights": np.array([None, 1], dtype=object)},
            {"n_samples": 200, "reason": "x" * (MAX_TEXT + 1)},
            {"n_samples": 200, "log_likelihood": "high"},
            {"n_samples": 200, "extra": [[[[[1]]]]]},
            {"n_samples": 200, "weights": np.array(["2020"], dtype="M8[Y]")},
            type("Dict", (dict,), {})(n_samples=200),
        ],
    )
    def test_anything_else_is_refused_with_a_reason(self, message, one_partition_less, monkeypatch):
        """A worker that returns it instead of its estimate costs its own partition, and no more."""
        fit = tasks.fit_partition

        def hostile(loader, partition, *args):
            return message if partition == 3 else fit(loader, partition, *args)

        monkeypatch.setattr(tasks, "fit_partition", hostile)
        with (
            dask.config.set(scheduler="synchronous"),
            pytest.warns(PartitionWarning, match="malformed estimate"),
        ):
            gm = make().fit(make_ddf(M))
        report = gm.partition_report_
        assert report["outcome"].tolist() == ["fitted"] * 3 + ["failed"] + ["fitted"] * 4
        assert report["partition"].tolist() == list(range(M))
        assert gm.support_.sum() == M - 1
        np.testing.assert_allclose(gm.means_, one_partition_less.means_, atol=0.05)

    def test_a_plain_message_that_is_wrong_is_refused_too(self, monkeypatch):
        fit = tasks.fit_partition

        def hostile(loader, partition, *args):
            message = fit(loader, partition, *args)
            return message | {"weights": -message["weights"]} if partition == 3 else message

        monkeypatch.setattr(tasks, "fit_partition", hostile)
        with dask.config.set(scheduler="synchronous"):
            gm = make(on_failed="ignore").fit(make_ddf(M))
        assert "weights must not be negative" in gm.partition_report_["reason"][3]
        assert not gm.estimates_[3].is_usable

    def test_a_message_does_not_say_whose_it_is(self):
        assert tasks.as_plain({"n_samples": 3, "partition": 0}, 5)["partition"] == 5

    def test_plain_mappings_are_left_as_they_are(self):
        message = {"n_samples": 3, "weights": np.ones(2)}
        assert plain_mapping(message) is message
