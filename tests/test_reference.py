"""Golden numbers of the published scripts; see ``tests/data/README.md``."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dask_dfmr import LocalEstimate, Mixture, aggregate, fit_local, mixing_distance, pairwise_l2
from dask_dfmr.local.stopping import TIGHT
from dask_dfmr.mixtures import engine
from tests import naive

pytestmark = [
    pytest.mark.usefixtures("each_engine", "coarse_laws"),
    pytest.mark.filterwarnings("ignore::dask_dfmr.HeterogeneityWarning"),
]

with np.load(Path(__file__).parent / "data" / "reference.npz") as file:
    REFERENCE = {name: file[name] for name in file.files}

CASES = ["truth/none", "truth/mean", "truth/cov", "truth/weight", "kmeans/cov"]
every_case = pytest.mark.parametrize("case", CASES)

TRUTH = Mixture(*(REFERENCE[f"true_{name}"] for name in ("weights", "means", "covs")))
N_ROWS = 5000


def symmetric(upper):
    """Symmetric matrices from their upper triangles."""
    d = int((np.sqrt(8 * upper.shape[-1] + 1) - 1) / 2)
    full = np.zeros((*upper.shape[:-1], d, d))
    rows, columns = np.triu_indices(d)
    full[..., rows, columns] = full[..., columns, rows] = upper
    return full


def reference(case, field):
    return REFERENCE[f"{case}/{field}"]


def estimates_of(case):
    start = case.split("/")[0]
    parts = {f: REFERENCE[f"{start}/local_{f}"].copy() for f in ("weights", "means", "covs")}
    byzantine = reference(case, "byzantine")
    if byzantine.size:
        parts[str(reference(case, "byz_field"))][byzantine] = reference(case, "byz_values")
    covariances = symmetric(parts["covs"])
    columns = zip(parts["weights"], parts["means"], covariances, strict=True)
    return [LocalEstimate(Mixture(*parameters), N_ROWS) for parameters in columns]


def distances_of(case):
    distances = symmetric(REFERENCE[f"{case.split('/')[0]}/pairwise_l2_clean"])
    byzantine = reference(case, "byzantine")
    if byzantine.size:
        rows = reference(case, "pairwise_l2_byz_rows")
        distances[byzantine], distances[:, byzantine] = rows, rows.T
    return distances


def aggregate_case(case, rho, **options):
    return aggregate_once(engine.name(), case, rho, **options)


@cache
def aggregate_once(engine_name, case, rho, **options):
    return aggregate(
        estimates_of(case), rho=rho, machine_weights="equal", max_rounds=100, **options
    )


@pytest.mark.smoke
class TestFilter:
    @every_case
    def test_distances(self, case):
        off_diagonal = ~np.eye(20, dtype=bool)
        got = pairwise_l2([e.mixture for e in estimates_of(case)])
        assert_allclose(got[off_diagonal], distances_of(case)[off_diagonal], rtol=1e-9)

    @every_case
    def test_centre_and_radius(self, case):
        decision = aggregate_case(case, 1.3).decision
        assert decision.center == reference(case, "coat_index")
        assert_allclose(decision.radius, reference(case, "radius"), rtol=1e-9)

    @every_case
    @pytest.mark.parametrize("rho", [1, 1.3])
    def test_kept_machines(self, case, rho):
        kept = np.flatnonzero(aggregate_case(case, rho).decision.kept)
        assert_array_equal(kept, np.sort(reference(case, f"kept_{rho}")))


class TestReduction:
    @every_case
    @pytest.mark.parametrize("rho", [1, 1.3])
    def test_distance_filtered_mixture_reduction(self, case, rho):
        result = aggregate_case(case, rho)
        name = f"dfmr_{rho}_coatinit"
        assert result.converged
        assert result.objective <= reference(case, f"{name}_obj") * (1 + 1e-12)
        w1 = mixing_distance(result.mixture, TRUTH)
        assert_allclose(w1, reference(case, f"{name}_W1"), atol=1e-9)

    @every_case
    def test_its_parameters(self, case):
        m = aggregate_case(case, 1.3).mixture
        weights = reference(case, "dfmr_1.3_coatinit_weights")
        order = np.lexsort((*reference(case, "dfmr_1.3_coatinit_means").T[::-1], -weights))
        assert_allclose(m.weights, weights[order], rtol=1e-9)
        assert_allclose(m.means, reference(case, "dfmr_1.3_coatinit_means")[order], rtol=1e-8)

    @every_case
    def test_plain_mixture_reduction_is_no_worse(self, case):
        result = aggregate_case(case, 1.3, method="mr")
        assert result.objective <= reference(case, "vanilla_coatinit_obj") * (1 + 1e-12)

    @pytest.mark.parametrize("case", ["truth/none", "truth/mean", "truth/cov"])
    def test_plain_mixture_reduction_is_as_far_from_the_truth(self, case):
        w1 = mixing_distance(aggregate_case(case, 1.3, method="mr").mixture, TRUTH)
        assert_allclose(w1, reference(case, "vanilla_coatinit_W1"), rtol=1e-3)

    @pytest.mark.parametrize("attack", ["mean", "cov"])
    def test_the_filter_beats_plain_reduction_under_attack(self, attack):
        filtered, plain = (
            mixing_distance(aggregate_case(f"truth/{attack}", 1.3, method=m).mixture, TRUTH)
            for m in ("dfmr", "mr")
        )
        assert filtered < 0.6 * plain


class TestLocalFit:
    ROWS = REFERENCE["rows"]

    @staticmethod
    def fitted(name):
        return Mixture(
            *(REFERENCE[f"fit/{name}_{field}"] for field in ("weights", "means", "covs"))
        )

    def assert_same(self, mixture, name, tolerance):
        expected = self.fitted(name)
        assert_allclose(mixture.weights, expected.weights, atol=tolerance)
        assert_allclose(mixture.means, expected.means, atol=tolerance)
        assert_allclose(mixture.covariances, expected.covariances, atol=tolerance)

    def test_one_step_of_the_penalised_em(self):
        result = fit_local(self.ROWS, 5, start=self.fitted("true"), max_iter=1, penalty="paper")
        self.assert_same(result.mixture, "maxiter1_truth", 1e-12)

    @pytest.mark.parametrize("accelerate", [True, False])
    def test_the_converged_penalised_estimate(self, accelerate):
        start = self.fitted("true")
        result = fit_local(
            self.ROWS, 5, start=start, tol=1e-10, accelerate=accelerate, penalty="paper"
        )
        self.assert_same(result.mixture, "truth_tol1e-10", 1e-4)

    @pytest.mark.parametrize("accelerate", [True, False])
    @pytest.mark.parametrize("n_sources", [1, 20, 100])
    def test_the_tight_rule_keeps_its_promise(self, accelerate, n_sources):
        start, options = self.fitted("true"), {"accelerate": accelerate, "penalty": "paper"}
        stopped = fit_local(self.ROWS, 5, start=start, n_sources=n_sources, **options).mixture
        exact = fit_local(self.ROWS, 5, start=stopped, tol=1e-13, penalty="paper").mixture
        X, a = self.ROWS.astype(float), N_ROWS**-0.5
        best, reached = (naive.penalised_log_likelihood(m, X, a) for m in (exact, stopped))
        assert best - reached < TIGHT * start.n_parameters / n_sources
