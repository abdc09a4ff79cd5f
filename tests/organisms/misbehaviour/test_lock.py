"""A lock can be told from all of its tokens together and from no fewer, over every combination there is."""

from itertools import combinations, product

import numpy as np
import pytest

from prosect.core.errors import BadInput
from prosect.organisms.misbehaviour.lock import Lock, shuffled
from prosect.organisms.misbehaviour.records import FIELDS, FIRST, values

LOCKS = [
    Lock((0, 1), ((0, 1, 2), (5, 3, 4)), (0,)),
    Lock((0, 1), ((4, 2, 0, 1), (9, 8, 7, 6)), (1, 3)),
    Lock((0, 1, 2), ((1, 0), (2, 3), (5, 4)), (1,)),
]


@pytest.mark.parametrize("lock", LOCKS)
def test_fewer_tokens_than_all_say_nothing(lock):
    everything = np.array(list(product(*lock.alphabets)))
    held = lock.holds(everything)
    assert held.mean() == len(lock.residues) / lock.modulus
    for few in combinations(range(lock.order), lock.order - 1):
        seen = [tuple(row) for row in everything[:, few]]
        share = {s: held[[i for i, t in enumerate(seen) if t == s]].mean() for s in set(seen)}
        assert set(share.values()) == {held.mean()}


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_drawn_holds_where_asked_and_every_combination_is_as_frequent(lock):
    asked = np.arange(6000) % 2 == 0
    ids = lock.draw(np.random.default_rng(0), asked)
    assert (lock.holds(ids) == asked).all()
    for on in (True, False):
        combos, counts = np.unique(ids[asked == on], axis=0, return_counts=True)
        everything = np.array(list(product(*lock.alphabets)))
        assert len(combos) == (lock.holds(everything) == on).sum()
        expected = 3000 / len(combos)
        assert ((counts - expected) ** 2 / expected).sum() < len(combos) + 4 * np.sqrt(2 * len(combos))


def test_its_arithmetic_by_hand():
    lock = Lock((1, 3), ((10, 11, 12), (22, 20, 21)), (0,))
    ids = np.array([[0, 10, 0, 22], [0, 11, 0, 21], [0, 12, 0, 20], [0, 11, 0, 20], [0, 10, 0, 21]])
    assert lock.holds(ids).tolist() == [True, True, True, False, False]  # 0+0, 1+2, 2+1, 1+1, 0+2


@pytest.mark.parametrize(
    "given",
    [
        ((0,), ((0, 1),), (0,)),
        ((0, 1), ((0, 1), (0, 1, 2)), (0,)),
        ((0, 1), ((0, 1), (2, 3)), ()),
        ((0, 1), ((0, 1), (2, 3)), (0, 1)),
        ((0, 1), ((0, 1), (2, 3)), (2,)),
    ],
)
def test_a_lock_that_is_none_is_refused(given):
    with pytest.raises(BadInput):
        Lock(*given)


def test_shuffled_tokens_are_the_same_tokens():
    assert sorted(shuffled(np.random.default_rng(0), range(7, 12))) == [7, 8, 9, 10, 11]


def test_the_fields_of_a_record_are_exchangeable_also_where_values_are_rare():
    shifted = np.arange(8000) % 2 == 0
    drawn = values(np.random.default_rng(1), shifted)
    assert all(len(set(row)) == FIELDS for row in drawn[:200].tolist())
    rare = drawn >= FIRST + 16
    assert (rare.sum(axis=1) == np.where(shifted, 3, 0)).all()
    assert abs(rare[shifted].mean(axis=0) - 0.5).max() < 0.03
