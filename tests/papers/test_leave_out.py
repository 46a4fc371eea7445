"""Leave-group-out: equals a schema without the group, keeps the contract, refuses nonsense."""

import numpy as np
import pytest

from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Linear
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.leave_out import LeaveOutFeatures
from ctr.testing import module_checks

FEATURES = (
    Feature("user"),
    Feature("ad"),
    Feature("words", "bag", max_length=3),
    Feature("price", "numeric"),
    Feature("size", "numeric"),
    Feature("user_x_ad", cross=("user", "ad")),
)
SCHEMA = Schema("all", FEATURES, (Label("click"),))
LEFT = Schema("left", (FEATURES[0], FEATURES[2], FEATURES[4]), (Label("click"),))
RECIPE = Recipe(model=Linear(), batch_size=64, table_rows=2048, init_scale=0.0)


def chunk(seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 2048, (4, 64, 6)).astype(np.int32)
    numeric = rng.normal(size=(4, 64, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (4, 64, 1)).astype(np.float32)
    return Chunk(ids, numeric, labels, np.ones((4, 64), np.float32), {})


def test_it_is_the_base_without_the_features():
    module = LeaveOutFeatures(features=["ad", "price"])
    whole = Learner(module.apply(RECIPE), SCHEMA, n_batches=4)
    less = Learner(RECIPE, LEFT, n_batches=4)
    given = chunk()
    # user, ad, user_x_ad, three words: the cross goes with the ad.
    kept = given._replace(ids=given.ids[:, :, [0, 3, 4, 5]], numeric=given.numeric[:, :, [1]])
    # Row optimizers take the number of inputs into account, which differs; the start does not.
    first, second = whole.learn(given), less.learn(kept)
    np.testing.assert_array_equal(first[0], second[0])
    other = Learner(module.apply(RECIPE), SCHEMA, n_batches=4)
    changed = given.ids.copy()
    changed[:, :, [1, 2]] = 7
    numeric = given.numeric.copy()
    numeric[:, :, 0] = 99.0
    np.testing.assert_array_equal(first, other.learn(given._replace(ids=changed, numeric=numeric)))


def test_what_cannot_be_left_out():
    for features, error, message in (
        ([], ConfigError, "at least one feature"),
        (["adx"], ModuleError, "did you mean 'ad'"),
        ([f.name for f in FEATURES], ModuleError, "no feature is left"),
    ):
        with pytest.raises(error, match=message):
            Learner(LeaveOutFeatures(features=features).apply(RECIPE), SCHEMA)


@pytest.mark.parametrize(
    "check", module_checks(LeaveOutFeatures(features=["user_id", "price"])), ids=str
)
def test_the_contract(check):
    check()
