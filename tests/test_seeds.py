"""Seeds: one entropy per fit, and streams that depend on their key alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dask_dfmr.seeds import legacy_draws, seed_sequence, stream

pytestmark = pytest.mark.smoke


def state(sequence):
    return sequence.generate_state(4).tolist()


@pytest.mark.parametrize(
    "make",
    [
        lambda: 7,
        lambda: np.int64(7),
        lambda: np.random.RandomState(7),
        lambda: np.random.default_rng(7),
    ],
)
def test_the_same_random_state_gives_the_same_entropy(make):
    assert state(seed_sequence(make())) == state(seed_sequence(make()))


def test_an_integer_means_what_its_random_state_means():
    assert state(seed_sequence(7)) == state(seed_sequence(np.random.RandomState(7)))


def test_a_seed_sequence_is_itself():
    sequence = np.random.SeedSequence(3)
    assert seed_sequence(sequence) is sequence


def test_none_is_fresh_entropy():
    assert state(seed_sequence(None)) != state(seed_sequence(None))


def test_a_generator_that_is_used_again_goes_on():
    rng = np.random.default_rng(7)
    assert state(seed_sequence(rng)) != state(seed_sequence(rng))


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="random_state must be"):
        seed_sequence("seven")


def test_a_stream_depends_on_its_key_only():
    seed = seed_sequence(0)
    first = state(stream(seed, 5))
    stream(seed, 1)
    seed.spawn(3)
    assert state(stream(seed, 5)) == first


def test_other_keys_are_other_streams():
    seed = seed_sequence(0)
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert len({tuple(state(stream(seed, *key))) for key in keys}) == len(keys)


def test_a_stream_of_a_stream_is_a_longer_key():
    seed = seed_sequence(0)
    assert state(stream(stream(seed, 2), 3)) == state(stream(seed, 2, 3))


def test_streams_are_numpys_children():
    assert state(stream(np.random.SeedSequence(9), 1)) == state(
        np.random.SeedSequence(9).spawn(2)[1]
    )


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_draws_of_a_seed_are_those_of_its_random_state(seed):
    legacy_draws(3).normal()  # which keeps a second normal number for the next call
    expected = np.random.RandomState(seed)
    found = legacy_draws(seed)
    np.testing.assert_array_equal(found.normal(size=5), expected.normal(size=5))
    np.testing.assert_array_equal(found.uniform(size=700), expected.uniform(size=700))


def test_every_thread_draws_for_itself():
    mine = legacy_draws(3)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: legacy_draws(4).uniform(size=9)).result()
    assert mine.uniform() == np.random.RandomState(3).uniform()
