"""On the simulator: what a model makes of position, and how pages in random order put it right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctr.calibration import NoCalibration
from ctr.data import manifest
from ctr.data.reader import ShardReader
from ctr.learner import Learner
from ctr.models import Linear
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.simulator import WorldConfig, write_data
from ctr.techniques.bias_constraints import BiasConstraints
from ctr.techniques.ui_factorization import UiFactorization, in_treatment

#: The auction knows the quality well, the base rate stands still; one page in five is shuffled.
CONFIG = WorldConfig(
    n_users=500, n_queries=120, n_ads=512, n_advertisers=64, days=2.0, auction_noise=0.3,
    shift_logit=0.0, randomised=0.2,
)  # fmt: skip
N = 120_000
ADDITIVE = UiFactorization(dims=0, hidden=())
BOUND = BiasConstraints(
    slices=("slot",), column="randomised", weight=1.0, alpha=0.02, rate=0.01, ramp_examples=5000
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("simulated") / "data"
    write_data(data, N, 3, CONFIG)
    return data


def trained(folder: Path, recipe: Recipe) -> Learner:
    schema, shards = manifest.load(folder)
    learner = Learner(recipe, schema)
    reader = ShardReader(folder, schema, shards, learner.encoder, ("click",), 0, learner.side)
    for examples in reader.chunks(learner.chunk_shape):
        learner.learn(examples.chunk(learner.chunk_shape))
    return learner


def test_constraints_on_shuffled_pages_recover_examination_and_lower_the_bias_there(
    folder: Path,
) -> None:
    shards = sorted((folder / "shards").glob("*.parquet"))
    table = pq.read_table(shards[-1])
    truth = pq.read_table(folder / "truth" / "truth.parquet")["p_click"].to_numpy()
    truth = truth[N - len(table) :].astype(np.float64)
    shuffled = table["randomised"].to_numpy() == 1
    position = table["position"].to_numpy()
    expected = np.array(CONFIG.examination)[1:] / CONFIG.examination[0]
    error, bias = {}, {}
    for name, modules in {"free": [ADDITIVE], "bound": [ADDITIVE, BOUND]}.items():
        base = Recipe(
            model=Linear(), batch_size=256, table_rows=1 << 15, calibrator=NoCalibration()
        )
        learner = trained(folder, compose(base, modules))
        encoded = learner.encoder.encode(table.combine_chunks().to_batches()[0], "simulated")
        ids, numeric = encoded.ids, encoded.numeric
        means = []
        for slot in range(1, 5):
            shown = {"slot": str(slot), "treatment": "plain"}
            where = in_treatment(learner.encoder, ids, numeric, shown)
            means.append(learner.predict(*where)[:, 0].mean())
        error[name] = np.abs(np.array(means[1:]) / means[0] / expected - 1).mean()
        prob = learner.predict(ids, numeric)[:, 0].astype(np.float64)
        chosen = [shuffled & (position == slot) for slot in range(1, 5)]
        relative = [prob[rows].sum() / truth[rows].sum() - 1 for rows in chosen]
        bias[name] = np.sqrt(np.mean(np.square(relative)))
    assert error["bound"] < 0.6 * error["free"]
    assert bias["bound"] < 0.6 * bias["free"]
