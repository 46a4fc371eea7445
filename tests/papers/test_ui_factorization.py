"""UI factorization: separation of the halves, gauge, reductions, rank, counterfactual accuracy."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from ctr.data.examples import Chunk
from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.models import Linear, Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.ui_factorization import UiFactorization, in_treatment

SCHEMA = Schema(
    "shown",
    (
        Feature("ad"),
        Feature("slot", ui=True),
        Feature("words", "bag", max_length=3),
        Feature("price", "numeric"),
        Feature("size", "numeric", ui=True),
        Feature("skin", ui=True),
    ),
    (Label("click"),),
)
RECIPE = Recipe(model=Mlp(dim=4, hidden=(16,)), batch_size=256, table_rows=2048)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def chunk(learner, seed=0):
    k, b = learner.chunk_shape
    rng = np.random.default_rng(seed)
    layout = learner.encoder.layout
    ids = rng.integers(1, 2048, (k, b, layout.n_slots)).astype(np.int32)
    numeric = rng.normal(size=(k, b, len(layout.numeric))).astype(np.float32)
    labels = rng.integers(0, 2, (k, b, len(learner.labels))).astype(np.float32)
    return Chunk(ids, numeric, labels, np.ones((k, b), np.float32), {})


def halves_of(learner, ids, numeric):
    forward = learner._forward(tf.constant(ids), tf.constant(numeric), training=False)[2]
    return forward.aux["quality"].numpy(), forward.aux["presentation"].numpy(), forward.logits


@pytest.fixture(scope="module", params=["sigmoid", "exp"])
def learner(request):
    built = Learner(compose(RECIPE, [UiFactorization(transfer=request.param)]), SCHEMA, n_batches=8)
    for seed in range(2):
        assert np.isfinite(built.learn(chunk(built, seed))).all()
    return built


def test_no_presentation_feature_enters_quality_and_none_of_quality_the_presentation(learner):
    one = chunk(learner, 7)
    ids, numeric = one.ids[0], one.numeric[0]
    quality, presentation, _ = halves_of(learner, ids, numeric)
    other = chunk(learner, 8)
    layout = learner.encoder.layout
    is_ui = np.zeros(layout.n_slots, bool)
    for slot in layout.slots:
        is_ui[slot.start : slot.stop] = slot.feature.ui
    ui_numbers = np.array([f.ui for f in layout.numeric])
    changed = halves_of(
        learner, np.where(is_ui, other.ids[0], ids), np.where(ui_numbers, 9.0, numeric)
    )
    np.testing.assert_array_equal(changed[0], quality)
    assert (changed[1] != presentation).any()
    changed = halves_of(
        learner, np.where(is_ui, ids, other.ids[0]), np.where(ui_numbers, numeric, 9.0)
    )
    assert (changed[0] != quality).any()
    np.testing.assert_array_equal(changed[1], presentation)


def test_all_pairs_from_cached_vectors_equal_predictions_one_by_one(learner):
    one = chunk(learner, 9)
    quality, presentation, logits = halves_of(learner, one.ids[0][:6], one.numeric[0][:6])
    pairs = learner.model.logits(quality[:, None], presentation[None]).numpy()
    alone = pairs[np.arange(6), np.arange(6)]
    np.testing.assert_allclose(alone, logits.numpy(), rtol=1e-5, atol=1e-6)
    assert pairs.shape == (6, 6, 1)


def test_log_odds_have_the_rank_of_the_vectors():
    built = Learner(compose(RECIPE, [UiFactorization(dims=2)]), SCHEMA, n_batches=8)
    built.learn(chunk(built))
    one = chunk(built, 3)
    quality, presentation, _ = halves_of(built, one.ids[0], one.numeric[0])
    pairs = built.model.logits(quality[:, None], presentation[None]).numpy()[..., 0]
    values = np.linalg.svd(pairs.astype(np.float64), compute_uv=False)
    assert values[4] < 1e-4 * values[0]  # q + u + two products


def test_exp_is_a_product_of_probabilities():
    built = Learner(compose(RECIPE, [UiFactorization(dims=0, transfer="exp")]), SCHEMA, n_batches=8)
    built.learn(chunk(built))
    one = chunk(built, 4)
    quality, presentation, logits = halves_of(built, one.ids[0], one.numeric[0])
    seen = sigmoid(presentation[..., 0].astype(np.float64) + 2.2)
    expected = sigmoid(quality[..., 0].astype(np.float64)) * seen
    np.testing.assert_allclose(sigmoid(logits.numpy().astype(np.float64)), expected, rtol=1e-5)


def test_without_dimensions_and_hidden_units_it_is_the_linear_model():
    base = dataclasses.replace(RECIPE, model=Linear())
    ours = Learner(compose(base, [UiFactorization(dims=0, hidden=())]), SCHEMA, n_batches=8)
    theirs = Learner(base, SCHEMA, n_batches=8)
    for seed in range(3):
        a, b = (x.learn(chunk(x, seed)) for x in (ours, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_several_labels_keep_their_own_numbers():
    schema = dataclasses.replace(SCHEMA, labels=(Label("click"), Label("buy")))
    built = Learner(
        compose(RECIPE, [UiFactorization(dims=1)]), schema, labels=("click", "buy"), n_batches=8
    )
    one = chunk(built)
    one.labels[..., 1] = 0.0
    for _ in range(3):
        probs = built.learn(one)
    assert probs[-1, :, 1].mean() < 0.2 < probs[-1, :, 0].mean()


#: Clicks follow sigmoid(q + u + 0.8 q u), as no additive model can.
def planted(rng, n, uniform):
    ad = rng.integers(0, 40, n)
    quality = np.linspace(-1.5, 1.5, 40)[ad]
    # Better ads are shown in better slots, unless slots are drawn.
    order = rng.normal(size=n) if uniform else quality + 0.7 * rng.normal(size=n)
    slot = np.clip(np.floor(2.0 - order), 0, 3).astype(int)
    if uniform:
        slot = rng.integers(0, 4, n)
    effect = np.array([0.8, 0.2, -0.6, -1.4])[slot]
    return ad, slot, -1.0 + quality + effect + 0.6 * quality * effect


TOY = Schema("toy", (Feature("ad"), Feature("slot", ui=True)), (Label("click"),))


def encode(learner, ad, slot):
    table = pa.table({"ad": [f"a{x}" for x in ad], "slot": [str(x) for x in slot]})
    encoded = learner.encoder.encode(table)
    return encoded.ids, encoded.numeric


def test_quality_at_a_reference_treatment_and_other_treatments_are_recovered():
    recipe = Recipe(model=Mlp(dim=8, hidden=(32,)), batch_size=256, table_rows=8192)
    errors = {}
    rng = np.random.default_rng(0)
    ad, slot, truth = planted(rng, 120_000, uniform=False)
    labels = (rng.random(len(ad)) < sigmoid(truth)).astype(np.float32)
    arms = {"factorized": [UiFactorization(dims=2, hidden=(16,))],
            "no presentation": []}  # fmt: skip
    test_ad, test_slot, test_truth = planted(rng, 20_000, uniform=True)
    for name, modules in arms.items():
        built = Learner(compose(recipe, modules), TOY)
        ids, numeric = encode(built, ad, slot if modules else np.zeros_like(slot))
        k, b = built.chunk_shape
        for at in range(0, len(ad) - k * b + 1, k * b):
            part = slice(at, at + k * b)
            built.learn(
                Chunk(ids[part].reshape(k, b, 2), numeric[part].reshape(k, b, 0),
                      labels[part].reshape(k, b, 1), np.ones((k, b), np.float32), {})
            )  # fmt: skip
        ids, numeric = encode(built, test_ad, test_slot if modules else np.zeros_like(test_slot))
        probs = built.predict(ids, numeric)[:, 0].astype(np.float64)
        p = sigmoid(test_truth)
        loss = -(p * np.log(probs) + (1 - p) * np.log1p(-probs)).mean()
        errors[name] = loss + (p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
        if modules:
            ids, numeric = in_treatment(built.encoder, ids, numeric, {"slot": "0"})
            at_top = built.predict(ids, numeric)[:, 0]
            quality = np.linspace(-1.5, 1.5, 40)[test_ad]
            expected = sigmoid(-1.0 + quality + 0.8 + 0.6 * quality * 0.8)
            assert np.corrcoef(at_top, expected)[0, 1] > 0.97
            # The slot an ad was really shown in has no say.
            assert len(np.unique(at_top)) == 40
    assert errors["factorized"] < 0.02 < 0.3 * errors["no presentation"]


def test_a_treatment_names_every_presentation_feature():
    built = Learner(compose(RECIPE, [UiFactorization()]), SCHEMA)
    ids, numeric = (
        np.ones((2, built.encoder.layout.n_slots), np.int32),
        np.zeros((2, 2), np.float32),
    )
    with pytest.raises(ConfigError, match="skin"):
        in_treatment(built.encoder, ids, numeric, {"slot": "1", "size": 1.0})
    with pytest.raises(ConfigError, match="no presentation feature"):
        in_treatment(built.encoder, ids, numeric, {"slott": "1", "size": 1.0, "skin": "x"})


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ((Feature("ad"), Feature("user")), "none is marked"),
        ((Feature("slot", ui=True),), "all are marked"),
        ((Feature("ad"), Feature("slot", ui=True), Feature("x", cross=("ad", "slot"))), "cross"),
    ],
)
def test_features_that_cannot_be_split_are_refused(features, message):
    schema = Schema("s", features, (Label("click"),))
    with pytest.raises(ModuleError, match=message):
        Learner(compose(RECIPE, [UiFactorization()]), schema)


def test_a_cross_of_presentation_features_is_one():
    cross = Feature("place", cross=("slot", "skin"))
    schema = dataclasses.replace(SCHEMA, features=(*SCHEMA.features, cross))
    built = Learner(compose(RECIPE, [UiFactorization()]), schema)
    names = [s.feature.name for s in built.model._presentation.layout.slots]
    assert names == ["slot", "skin", "place"]


def test_settings_out_of_range_are_refused():
    for wrong in ({"transfer": "tanh"}, {"dims": -1}, {"hidden": ()}, {"hidden": (0,)}):
        with pytest.raises(ConfigError):
            UiFactorization(**wrong)


def test_equal_presentations_have_equal_vectors():
    # What a cache of vectors relies on: equal features, equal bits.
    built = Learner(compose(RECIPE, [UiFactorization()]), SCHEMA, n_batches=8)
    built.learn(chunk(built))
    one = chunk(built, 5)
    layout = built.encoder.layout
    ids = one.ids[0].copy()
    columns = [s.start for s in layout.slots if s.feature.ui]
    ids[:, columns] = ids[:1, columns]
    numeric = one.numeric[0].copy()
    numeric[:, 1] = 0.5
    presentation = halves_of(built, ids, numeric)[1]
    np.testing.assert_array_equal(
        presentation, np.broadcast_to(presentation[:1], presentation.shape)
    )
