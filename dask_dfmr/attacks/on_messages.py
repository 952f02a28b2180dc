"""Attacks by messages that are not valid estimates, from broken or hostile senders. All must be refused with a reason.

If an attack has several ways to be wrong, the bad sources take turns with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dask_dfmr.attacks.adversary import Adversary, message_of, mixture_of
from dask_dfmr.attacks.catalogue import enter
from dask_dfmr.mixtures.family import take

Message = dict[str, Any]
"""What a source sends: :meth:`LocalEstimate.to_arrays`, or something malformed."""

MESSAGE_ORIGIN = "this project: what a broken or hostile sender might send"
"""Origin of all attacks in this module."""


def _arrays(message: Message) -> list[str]:
    """Names of the arrays in a message."""
    return [name for name, value in message.items() if isinstance(value, np.ndarray)]


def _in_turn(adversary: Adversary, ways: Sequence[Callable[[Message], Message]]) -> list[Message]:
    """The messages of the bad sources, each wrong in the next way."""
    return [ways[i % len(ways)](message_of(e)) for i, e in enumerate(adversary.own)]


def _with_value(name: str, value: float) -> Callable[[Message], Message]:
    def way(message: Message) -> Message:
        message[name].flat[0] = value
        return message

    return way


def _each_array(adversary: Adversary, value: float) -> list[Callable[[Message], Message]]:
    return [_with_value(name, value) for name in _arrays(message_of(adversary.honest[0]))]


@enter("nan", "messages", source=MESSAGE_ORIGIN)
def nan(adversary: Adversary, strength: float) -> list[Message]:
    """One number is NaN: in the weights, the means, the covariances, in turn."""
    return _in_turn(adversary, _each_array(adversary, np.nan))


@enter("infinity", "messages", source=MESSAGE_ORIGIN)
def infinity(adversary: Adversary, strength: float) -> list[Message]:
    """One number is infinite: in the weights, the means, the covariances, in turn."""
    return _in_turn(adversary, _each_array(adversary, np.inf))


@enter("wrong_n_components", "messages", source=MESSAGE_ORIGIN)
def wrong_n_components(adversary: Adversary, strength: float) -> list[Message]:
    """A valid mixture with one component more: the first one is repeated."""
    sent = []
    for e in adversary.own:
        mixture = mixture_of(e)
        index = np.r_[0, : len(mixture.weights)].astype(np.intp)
        weights = mixture.weights[index].copy()
        weights[:2] /= 2
        more = mixture.family.mixture(
            weights, take(mixture.components, index), mixture.feature_names
        )
        sent.append(message_of(e) | more.to_arrays())
    return sent


@enter("wrong_n_features", "messages", source=MESSAGE_ORIGIN, gaussian_only=True)
def wrong_n_features(adversary: Adversary, strength: float) -> list[Message]:
    """A valid mixture with one column more."""
    sent = []
    for e in adversary.own:
        mixture, message = mixture_of(e), message_of(e)
        kind, d = mixture.covariance_type, mixture.n_features
        covariances = mixture.covariances
        if kind in ("full", "tied"):
            larger = np.zeros((*covariances.shape[:-2], d + 1, d + 1))
            larger[..., :d, :d], larger[..., d, d] = covariances, 1.0
            message["covariances"] = larger
        elif kind == "diag":
            message["covariances"] = np.hstack([covariances, np.ones((len(covariances), 1))])
        message["means"] = np.hstack([mixture.means, np.zeros((len(mixture.means), 1))])
        message["feature_names"] = None
        sent.append(message)
    return sent


@enter("negative_weights", "messages", source=MESSAGE_ORIGIN)
def negative_weights(adversary: Adversary, strength: float) -> list[Message]:
    """The sum of the weights is 1, the first one is -0.5."""
    return [
        message_of(e) | {"weights": np.append(-0.5, np.full(len(w) - 1, 1.5 / max(len(w) - 1, 1)))}
        for e in adversary.own
        for w in [mixture_of(e).weights]
    ]


@enter("wrong_weight_sum", "messages", source=MESSAGE_ORIGIN)
def wrong_weight_sum(adversary: Adversary, strength: float) -> list[Message]:
    """The weights are all zero, or sum to 2, or are too large to be summed."""

    def times(factor: float) -> Callable[[Message], Message]:
        return lambda message: message | {"weights": factor * message["weights"]}

    return _in_turn(adversary, [times(0.0), times(2.0), times(1.7e308)])


@enter("asymmetric", "messages", source=MESSAGE_ORIGIN, gaussian_only=True)
def asymmetric(adversary: Adversary, strength: float) -> list[Message]:
    """Covariances, of "full" and "tied" mixtures in two columns or more, have an upper half unlike the lower one."""
    _need_matrices(adversary, "asymmetric")
    sent = []
    for e in adversary.own:
        message = message_of(e)
        covariances = message["covariances"]
        covariances[..., 0, 1] += 0.01 * covariances[..., 0, 0]
        sent.append(message)
    return sent


def _need_matrices(adversary: Adversary, name: str) -> None:
    mixture = mixture_of(adversary.honest[0])
    if mixture.covariance_type not in ("full", "tied") or mixture.n_features < 2:
        raise ValueError(
            f"attack {name!r} needs covariance matrices in two columns or more; got covariance_type "
            f"{mixture.covariance_type!r} in {mixture.n_features}."
        )


@enter("indefinite", "messages", source=MESSAGE_ORIGIN, gaussian_only=True)
def indefinite(adversary: Adversary, strength: float) -> list[Message]:
    """The smallest eigenvalue, or variance, of every covariance has the opposite sign."""
    sent = []
    for e in adversary.own:
        message, covariances = message_of(e), mixture_of(e).covariances
        if mixture_of(e).covariance_type in ("full", "tied"):
            values, vectors = np.linalg.eigh(covariances)
            smallest = vectors[..., :1] @ np.swapaxes(vectors[..., :1], -1, -2)
            message["covariances"] = covariances - 2 * values[..., :1, None] * smallest
        else:
            message["covariances"] = covariances.copy()
            message["covariances"].flat[int(covariances.argmin())] *= -1
        sent.append(message)
    return sent


@enter("ill_conditioned", "messages", source=MESSAGE_ORIGIN, gaussian_only=True)
def ill_conditioned(adversary: Adversary, strength: float) -> list[Message]:
    """Covariances are singular to rounding: columns correlated by 1 - 1e-16, or variances of 1e-300."""
    sent = []
    for e in adversary.own:
        message, mixture = message_of(e), mixture_of(e)
        covariances = message["covariances"]
        if mixture.covariance_type in ("full", "tied") and mixture.n_features > 1:
            sd = np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
            message["covariances"] = (sd[..., :, None] * sd[..., None, :]) * (
                1.0 - 1e-16 * (1.0 - np.eye(mixture.n_features))
            )
        else:
            message["covariances"] = np.full_like(covariances, 1e-300)
        sent.append(message)
    return sent


@enter("wrong_dtype", "messages", source=MESSAGE_ORIGIN)
def wrong_dtype(adversary: Adversary, strength: float) -> list[Message]:
    """Weights are complex, texts, objects, dates, or missing, in turn."""

    def cast(change: Callable[[Any], Any]) -> Callable[[Message], Message]:
        return lambda message: message | {"weights": change(message["weights"])}

    return _in_turn(
        adversary,
        [
            cast(lambda w: w + 0.5j),
            cast(lambda w: np.array([f"w{x}" for x in w])),
            cast(lambda w: np.array([{"weight": x} for x in w], dtype=object)),
            cast(lambda w: np.full(len(w), np.datetime64("2026-01-01"))),
            cast(lambda w: np.array([None] * len(w), dtype=object)),
            cast(lambda w: "weights"),
            cast(lambda w: None),
        ],
    )


@enter("wrong_shape", "messages", source=MESSAGE_ORIGIN)
def wrong_shape(adversary: Adversary, strength: float) -> list[Message]:
    """Arrays are a number, have one axis more, are ragged, empty, or of different lengths, in turn."""

    def reshaped(change: Callable[[Any], Any]) -> Callable[[Message], Message]:
        def way(message: Message) -> Message:
            name = next(n for n in _arrays(message) if n != "weights")
            return message | {name: change(message[name])}

        return way

    return _in_turn(
        adversary,
        [
            reshaped(lambda a: float(a.flat[0])),
            reshaped(lambda a: a[None]),
            reshaped(lambda a: [[1.0], [1.0, 2.0]]),
            reshaped(lambda a: a[:0]),
            reshaped(lambda a: np.concatenate([a, a])),
            reshaped(lambda a: a[..., :0]),
        ],
    )


ABSURD_ROWS: tuple[Any, ...] = (0, -5, 1.5, np.nan, np.inf, 2**70, 10**400, "5000", None, 1j)
"""Values of ``n_samples`` that are no number of rows."""


@enter("absurd_rows", "messages", source=MESSAGE_ORIGIN)
def absurd_rows(adversary: Adversary, strength: float) -> list[Message]:
    """The row count is zero, negative, fractional, NaN, infinite, above 2**62, text, missing, or complex, in turn."""

    def claim(count: Any) -> Callable[[Message], Message]:
        return lambda message: message | {"n_samples": count}

    return _in_turn(adversary, [claim(count) for count in ABSURD_ROWS])


@enter("wrong_fields", "messages", source=MESSAGE_ORIGIN)
def wrong_fields(adversary: Adversary, strength: float) -> list[Message]:
    """Fields are missing, unknown, or contradict each other, in turn."""

    def lacking(name: str) -> Callable[[Message], Message]:
        return lambda message: {key: value for key, value in message.items() if key != name}

    first = _arrays(message_of(adversary.honest[0]))[1]
    return _in_turn(
        adversary,
        [
            lacking("n_samples"),
            lacking(first),
            lambda message: message | {"__reduce__": "os.system"},
            lambda message: message | {"outcome": "hacked"},
            lambda message: message | {"outcome": "failed"},
            lambda message: message | {"feature_names": 7},
            lambda message: {},
        ],
    )


@enter("wrong_details", "messages", source=MESSAGE_ORIGIN)
def wrong_details(adversary: Adversary, strength: float) -> list[Message]:
    """Details for reports and files have another type: arrays, objects, complex or negative numbers, in turn."""

    def with_details(**details: Any) -> Callable[[Message], Message]:
        return lambda message: message | details

    return _in_turn(
        adversary,
        [
            with_details(reason=np.ones(3)),
            with_details(partition=1j),
            with_details(source=object()),
            with_details(n_omitted="many"),
            with_details(n_iter=-1),
            with_details(log_likelihood=[1.0]),
            with_details(start=b"pilot"),
            with_details(n_outside=2**61),
        ],
    )
