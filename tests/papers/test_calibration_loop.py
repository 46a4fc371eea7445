"""The whole loop, model and calibrator: how soon bias is gone after the base rate has jumped."""

import numpy as np
import pytest

from ctr.calibration import NoCalibration, SliceBias
from ctr.data.examples import Chunk
from ctr.learner import Learner
from ctr.models import Linear
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.platt import Platt

SCHEMA = Schema("s", (Feature("place"), Feature("ad")), (Label("click"),), slices=("place",))
#: Examples from one jump to the next, and examples per point of the curve.
PERIOD, WINDOW = 32_768, 1024
N_JUMPS = 24


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def curve_after_a_jump(calibrator, size=0.5, seed=0):
    """Returns float64[PERIOD / WINDOW], sum(prediction) / sum(true rate) - 1 since a jump up.

    The base rate jumps up and down by ``size`` logits in turns. Jumps down count with the sign
    turned; the first two are left out, so that the model has a long past when it is surprised.
    """
    recipe = Recipe(model=Linear(), calibrator=calibrator, table_rows=2048)
    learner = Learner(recipe, SCHEMA, seed)
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    quality = rng.normal(0.0, 0.7, 200)
    n = N_JUMPS * PERIOD
    place, ad = rng.integers(0, 3, n), rng.integers(0, 200, n)
    up = (np.arange(n) // PERIOD) % 2 == 1
    rate = sigmoid(-2.5 + quality[ad] + 0.4 * place + size * up)
    click = (rng.random(n) < rate).astype(np.float32)
    ids = np.stack([1 + place, 100 + ad], axis=1).astype(np.int32)
    prob = np.concatenate(
        [
            learner.learn(
                Chunk(
                    ids[at : at + k * b].reshape(k, b, 2), np.zeros((k, b, 0), np.float32),
                    click[at : at + k * b].reshape(k, b, 1), np.ones((k, b), np.float32), {},
                )
            ).reshape(-1)
            for at in range(0, n, k * b)
        ]
    )  # fmt: skip
    sums = [x.reshape(N_JUMPS, PERIOD // WINDOW, WINDOW).sum(axis=2) for x in (prob, rate)]
    bias = (sums[0] / sums[1] - 1.0) * np.where(np.arange(N_JUMPS) % 2, 1.0, -1.0)[:, None]
    return bias[2:].mean(axis=0)


@pytest.mark.parametrize(
    ("calibrator", "examples"),
    [(SliceBias(), 15_360), (Platt(), 15_360), (NoCalibration(), 17_408)],
    ids=["default", "platt", "model alone"],
)
def test_bias_is_below_one_percent_soon_after_a_jump_of_half_a_logit(calibrator, examples):
    curve = curve_after_a_jump(calibrator)
    assert curve[0] < -0.3  # what was injected
    assert curve[4] < -0.05  # and is not forgotten at once
    assert np.abs(curve[examples // WINDOW :]).max() < 0.01
