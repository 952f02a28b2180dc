"""Make ``reference.npz``: a selection of reference numbers of the published scripts, in a small file.

    python tests/data/make_reference.py FOLDER

FOLDER holds the sets and files that ``README.md`` beside this script names.
"""

import sys
from pathlib import Path

import numpy as np

CASES = {
    "truth": [("none", 0.0), ("mean", 0.4), ("cov", 0.4), ("weight", 0.4)],
    "kmeans": [("cov", 0.4)],
}
POPULATION = "o0.3_s1"
RESULTS = ("dfmr_1_coatinit", "dfmr_1.3_coatinit", "vanilla_coatinit", "trim_coatinit")


def upper(matrices):
    """The upper triangles of symmetric matrices."""
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns]


def copy_case(case):
    """What is kept of one attack: who is byzantine and sends what, and what the scripts made of it."""
    out = {name: case[name] for name in ("byzantine", "coat_index", "radius", "kept_1", "kept_1.3")}
    distances = case.get("pairwise_l2_byz_rows", case.get("pairwise_l2"))
    if distances is not None:
        out["pairwise_l2_byz_rows"] = distances
    if case["byzantine"].size:
        field = str(case["byz_field"])
        values = case["byz_values"]
        out["byz_field"] = np.array(field)
        out["byz_values"] = upper(values) if field == "covs" else values
    for result in RESULTS:
        out |= {
            f"{result}_{name}": case[f"{result}_{name}"]
            for name in ("obj", "W1", "weights", "means")
        }
    out["trim_coatinit_trimmed_label"] = case["trim_coatinit_trimmed_label"]
    return out


def main(folder):
    arrays = {}
    for start, cases in CASES.items():
        base = np.load(folder / f"o0.3_m20_s1_{start}" / "base.npz")
        arrays |= {
            f"{start}/local_weights": base["local_weights"],
            f"{start}/local_means": base["local_means"],
            f"{start}/local_covs": upper(base["local_covs"]),
            f"{start}/pairwise_l2_clean": upper(base["pairwise_l2_clean"]),
        }
        arrays |= {f"true_{n}": base[f"true_{n}"] for n in ("weights", "means", "covs")}
        for attack, alpha in cases:
            name = f"o0.3_m20_s1_{start}/{attack}_a{alpha}.npz"
            case = dict(np.load(folder / name).items())
            arrays |= {f"{start}/{attack}/{key}": value for key, value in copy_case(case).items()}
    fits = np.load(folder / "local_fit_check.npz")
    arrays["rows"] = fits[f"{POPULATION}_rows"]
    for fit in ("true", "maxiter1_truth", "truth_tol1e-10"):
        for name in ("weights", "means", "covs"):
            arrays[f"fit/{fit}_{name}"] = fits[f"{POPULATION}_{fit}_{name}"]
    target = Path(__file__).with_name("reference.npz")
    np.savez_compressed(target, **arrays)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
