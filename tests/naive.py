"""Naive twins: the obvious slow version of what the package does cleverly."""

import itertools

import numpy as np
from scipy.stats import multivariate_normal


def full_components(mixture):
    """Means and full covariances, written out per type."""
    k, d = mixture.means.shape
    covariances = {
        "full": lambda: [mixture.covariances[i] for i in range(k)],
        "tied": lambda: [mixture.covariances for _ in range(k)],
        "diag": lambda: [np.diag(mixture.covariances[i]) for i in range(k)],
        "spherical": lambda: [mixture.covariances[i] * np.eye(d) for i in range(k)],
    }[mixture.covariance_type]()
    return mixture.means, np.array(covariances)


def component_densities(mixture, X):
    """phi_k(x), shape (n_samples, n_components)."""
    return np.array(
        [
            np.reshape(multivariate_normal(m, c).pdf(X), len(X))
            for m, c in zip(*full_components(mixture), strict=True)
        ]
    ).T


def density(mixture, X):
    return component_densities(mixture, X) @ mixture.weights


def responsibilities(mixture, X):
    joint = component_densities(mixture, X) * mixture.weights
    return joint / joint.sum(axis=1, keepdims=True)


def squared_distances(mixture, X):
    """(n_samples, n_components): squared distances in standard deviations of each component."""
    shift = X[:, None] - mixture.means
    inverse = np.linalg.inv(full_components(mixture)[1])
    return np.einsum("nkd,kde,nke->nk", shift, inverse, shift)


def product_integral(f, g):
    """<f, g> by a double loop over components."""
    return sum(
        w * v * multivariate_normal(mu, a + b).pdf(nu)
        for w, mu, a in zip(f.weights, *full_components(f), strict=True)
        for v, nu, b in zip(g.weights, *full_components(g), strict=True)
    )


def divergence(mu, a, nu, b):
    """KL(N(mu, a) || N(nu, b))."""
    inverse = np.linalg.inv(b)
    shift = mu - nu
    return 0.5 * (
        np.trace(inverse @ a)
        - len(mu)
        + shift @ inverse @ shift
        + np.log(np.linalg.det(b) / np.linalg.det(a))
    )


def in_structure(covariance_type, matrices, weights):
    """Full matrices per component in the shape of their type."""
    d = matrices.shape[-1]
    return {
        "full": lambda: matrices,
        "tied": lambda: np.einsum("k,kij->ij", weights / weights.sum(), matrices),
        "diag": lambda: np.array([np.diag(m) for m in matrices]),
        "spherical": lambda: np.array([np.trace(m) / d for m in matrices]),
    }[covariance_type]()


def scatter(mixture, X):
    """Rows n_k, means and scatter matrices S_k of the components, by the responsibilities of the mixture."""
    r = responsibilities(mixture, X)
    n_k = r.sum(axis=0)
    means = (r.T @ X) / n_k[:, None]
    return n_k, means, np.array([((X - m) * r[:, [i]]).T @ (X - m) for i, m in enumerate(means)])


def all_rows_targets(mixture, X):
    """The target of the paper's penalty: S_x, for every component."""
    return np.repeat(np.atleast_2d(np.cov(X.T))[None], mixture.n_components, axis=0)


def within_targets(mixture, X, share=1e-6):
    """The targets that a fit from this start has: (S_k + W) / (n_k + 1), for tied W, where W is within."""
    n_k, means, S = scatter(mixture, X)
    shift = means - X.mean(axis=0)
    W = (S.sum(axis=0) + share * (n_k[:, None] * shift).T @ shift) / len(X)
    if mixture.covariance_type == "tied":
        return np.repeat(W[None], len(n_k), axis=0)
    return (S + W) / (n_k + 1)[:, None, None]


def em_step(mixture, X, penalty=0.0, targets=None):
    """One EM step of the penalised likelihood as the page on local fits writes it: weights, means, covariances.

    full: (S_k + 2 a T_k) / (n_k + 2 a); tied: sum_k (S_k + 2 a T_k) / (n + 2 a K). None: S_x for every T_k.
    """
    n_k, means, S = scatter(mixture, X)
    a, k, d = penalty, mixture.n_components, mixture.n_features
    S = S + 2 * a * (all_rows_targets(mixture, X) if targets is None else targets)
    diagonals = np.array([np.diag(s) for s in S])
    covariances = {
        "full": lambda: S / (n_k + 2 * a)[:, None, None],
        "diag": lambda: diagonals / (n_k + 2 * a)[:, None],
        "spherical": lambda: diagonals.sum(1) / (d * (n_k + 2 * a)),
        "tied": lambda: S.sum(axis=0) / (len(X) + 2 * a * k),
    }[mixture.covariance_type]()
    return n_k / len(X), means, covariances


def penalised_log_likelihood(mixture, X, penalty, targets=None):
    """l(G) - a sum_k { tr(T_k Sigma_k^-1) + log det Sigma_k }; None: S_x for every T_k."""
    targets = all_rows_targets(mixture, X) if targets is None else targets
    penalties = [
        np.trace(t @ np.linalg.inv(c)) + np.log(np.linalg.det(c))
        for t, c in zip(targets, full_components(mixture)[1], strict=True)
    ]
    return np.log(density(mixture, X)).sum() - penalty * sum(penalties)


def reduction_round(weights, means, covariances, centers):
    """One round of mixture reduction with full covariances: labels, new centers, objective of the old ones."""
    labels, objective = [], 0.0
    for w, mu, a in zip(weights, means, covariances, strict=True):
        costs = [divergence(mu, a, nu, b) for _, nu, b in centers]
        labels.append(int(np.argmin(costs)))
        objective += w * min(costs)
    moved = []
    for k in range(len(centers)):
        mine = [i for i, label in enumerate(labels) if label == k]
        v = sum(weights[i] for i in mine)
        mu = sum(weights[i] / v * means[i] for i in mine)
        sigma = sum(
            weights[i] / v * (covariances[i] + np.outer(means[i] - mu, means[i] - mu)) for i in mine
        )
        moved.append((v, mu, sigma))
    return labels, moved, objective


def mixing_distance(a, b):
    """W1 for equal weights and equally many components: the best of all permutations."""

    def root(matrix):
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(np.sqrt(values)) @ vectors.T

    left, right = (list(zip(*full_components(m), strict=True)) for m in (a, b))
    costs = [
        [np.linalg.norm(mu - nu) + np.linalg.norm(root(s) - root(o)) for nu, o in right]
        for mu, s in left
    ]
    k = a.n_components
    return min(sum(costs[i][p[i]] for i in range(k)) for p in itertools.permutations(range(k))) / k
