"""Ids without a row of their own: an exported model treats them as the learner would next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.config import override
from ctr.data import manifest
from ctr.data.examples import Chunk
from ctr.learner import Learner
from ctr.recipe import named_recipe
from ctr.simulator import WorldConfig, write_data
from ctr.training import RunConfig, Trainer
from ctr.training.load import load_run
from serving.export import export_model
from serving.parity import TOLERANCE
from serving.predictor import Predictor

LEARNED, NEXT, BATCH = 3000, 32, 32
WORLD = WorldConfig(days=0.5, n_users=400, n_queries=32, n_ads=128, n_advertisers=16, n_topics=4,
                    dim=4)  # fmt: skip
DECLARED = {"user_id": {"admission": 6}, "ad_id": {"admission": 4, "expiry_s": 600.0}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Learner, Predictor, pa.Table]:
    """A learner, its exported model and the rows that come next."""
    folder = tmp_path_factory.mktemp("admission")
    data = folder / "data"
    write_data(data, LEARNED + NEXT, 5, WORLD, shard_rows=LEARNED)
    schema, shards = manifest.load(data)
    features = tuple(replace(f, **DECLARED.get(f.name, {})) for f in schema.features)
    manifest.commit(data, replace(schema, features=features), shards[:1])
    recipe = override(named_recipe("wide_dcn"), ["table_rows=16384", f"batch_size={BATCH}"])
    Trainer(data, folder / "run", RunConfig("wide_dcn", recipe)).train()
    version = export_model(folder / "run", folder / "models")
    coming = pq.read_table(data / shards[1].file)
    assert coming.num_rows == NEXT
    return load_run(folder / "run").learner, Predictor.load(version), coming


def test_all_kinds_of_ids_occur(exported) -> None:
    use = exported[0].table_use()
    assert list(use) == ["user_id", "ad_id"]
    for counts in use.values():
        assert min(counts["admitted"], counts["waiting"], counts["shared"]) > 10
        assert counts["occurrences"] == LEARNED
    assert use["user_id"]["expired"] == use["user_id"]["returns"] == 0
    assert min(use["ad_id"]["expired"], use["ad_id"]["returns"]) > 10


def test_the_exported_model_predicts_what_the_learner_does_next(exported) -> None:
    learner, predictor, coming = exported
    served = predictor.predict(coming)
    encoded = learner.encoder.encode(coming)
    np.testing.assert_allclose(
        served, learner.predict(encoded.ids, encoded.numeric)[:, 0], rtol=0, atol=TOLERANCE
    )
    # The way of training: rows with event times, one batch, predicted before it is learned. What
    # it learns is taken back, for the other tests.
    before = [(part, part.numpy()) for part in learner.variables]
    k, b = learner.chunk_shape
    assert b == NEXT
    now = int(learner.admission.now_us)
    chunk = Chunk(*(np.zeros((k, b, *part.shape[1:]), part.dtype) for part in
                    (encoded.ids, encoded.numeric, np.zeros((b, 1), np.float32),
                     np.zeros(b, np.float32))),
                  {name: np.full((k, b), now, np.int64) for name in learner.side})  # fmt: skip
    chunk.ids[0], chunk.numeric[0], chunk.weights[0] = encoded.ids, encoded.numeric, 1.0
    learned = learner.learn(chunk)[0, :, 0]
    for part, value in before:
        part.assign(value)
    np.testing.assert_allclose(learned, served, rtol=0, atol=TOLERANCE)


def test_strangers_are_alike_and_unlike_those_who_are_known(exported) -> None:
    learner, predictor, coming = exported
    row = coming.slice(0, 1)

    def prob(name: str, value: str | None) -> float:
        at = row.schema.get_field_index(name)
        kind = row.schema.field(at).type
        return float(predictor.predict(row.set_column(at, name, pa.array([value], kind)))[0])

    ids = learner.encoder.encode(coming).ids
    own_row = learner.admission(ids).numpy() == ids
    for name in DECLARED:
        (slot,) = (s.start for s in learner.layout.slots if s.feature.name == name)
        values = zip(coming[name].to_pylist(), own_row[:, slot], strict=True)
        known = {value for value, own in values if own}
        assert known
        strangers = {prob(name, "nobody"), prob(name, "\N{SNOWMAN}"), prob(name, "")}
        assert len(strangers) == 1, name
        assert all(abs(prob(name, value) - min(strangers)) > 1e-6 for value in known)
