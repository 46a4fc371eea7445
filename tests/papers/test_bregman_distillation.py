"""Bregman PCA: the geometry, the fit, the fixed layer, and a student that follows its teacher."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from ctr.errors import ConfigError, ModuleError
from ctr.learner import Learner
from ctr.losses import LogLoss
from ctr.models import Ensemble, Linear
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from ctr.techniques.ensemble import EnsembleModule
from ctr.testing import tiny_recipe
from ctr.testing.checks import Bench
from research_modules.bregman_distillation.digits import Teacher, geometry, images, student
from research_modules.bregman_distillation.geometry import TRANSFERS
from research_modules.bregman_distillation.module import BregmanDistillation, BregmanLoss
from research_modules.bregman_distillation.pca import _retract, fit
from research_modules.bregman_distillation.student import FixedLayer

TINY = ("dim=4", "cross_layers=0", "hidden=[8]", 'activation="leaky_relu"')
MODULE = BregmanDistillation(k=2, set=TINY, every=300, sample=128, sweeps=3)
NAMES = tuple(TRANSFERS)


def outputs(name: str, n: int = 200, d: int = 6, seed: int = 0, rank: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, d)) + rng.normal(size=d)
    return TRANSFERS[name].f(0.7 * a)


@pytest.mark.parametrize("name", NAMES)
def test_the_divergence_is_what_its_definition_says(name: str) -> None:
    transfer, x = TRANSFERS[name], outputs(name)
    a = np.random.default_rng(1).normal(size=x.shape)
    b = transfer.inverse(x)
    by_definition = transfer.potential(a) - transfer.potential(b)
    by_definition -= (transfer.f(b) * (a - b)).sum(axis=1)
    found = transfer.divergence(a, x)
    np.testing.assert_allclose(found, by_definition, atol=1e-6)
    # Duality: D_F(a, f*(x)) = D_F*(x, f(a)).
    y = transfer.f(a)
    dual = transfer.conjugate(x) - transfer.conjugate(y)
    dual -= (transfer.inverse(y) * (x - y)).sum(axis=1)
    np.testing.assert_allclose(found, dual, atol=1e-5)
    assert found.min() > 0
    np.testing.assert_allclose(transfer.divergence(b, x), 0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_potential_and_metric_are_integral_and_slope(name: str) -> None:
    transfer = TRANSFERS[name]
    a = np.random.default_rng(2).normal(size=(1, 4)) + 0.3
    eps = 1e-5
    shifts = eps * np.eye(4)
    gradient = [
        float((transfer.potential(a + s) - transfer.potential(a - s))[0] / 2 / eps) for s in shifts
    ]
    np.testing.assert_allclose(gradient, transfer.f(a)[0], atol=1e-7)
    hessian = [((transfer.f(a + s) - transfer.f(a - s)) / 2 / eps)[0] for s in shifts]
    np.testing.assert_allclose(hessian, transfer.metric(a[0]), atol=1e-6)


def test_for_the_identity_it_is_pca() -> None:
    x = outputs("identity", rank=6)
    fitted = fit(x, 2, TRANSFERS["identity"])
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0))
    top = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][:2]
    cosines = np.linalg.svd(top @ fitted.components)[1]
    np.testing.assert_allclose(cosines, 1.0, atol=1e-6)
    np.testing.assert_allclose(fitted.components.T @ fitted.components, np.eye(2), atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_the_fit_never_rises_and_ends_orthonormal(name: str) -> None:
    x = outputs(name)
    transfer = TRANSFERS[name]
    losses = []
    for k in (1, 2, 3):
        fitted = fit(x, k, transfer)
        assert np.diff(fitted.losses).max() <= 1e-10
        gram = fitted.components.T @ transfer.metric(fitted.mean) @ fitted.components
        np.testing.assert_allclose(gram, np.eye(k), atol=1e-8)
        spread = fitted.coefficients.T @ fitted.coefficients
        np.testing.assert_allclose(spread, np.diag(np.diag(spread)), atol=1e-6 * spread.max())
        assert np.diff(np.diag(spread)).max(initial=-1) <= 0
        losses.append(fitted.losses[-1])
        if transfer.simplex:
            np.testing.assert_allclose(fitted.components.sum(axis=0), 0, atol=1e-9)
    assert losses[0] > losses[1] > losses[2]
    # Three directions made the data; but for the mean's place they can be found again.
    assert losses[2] < 0.05 * fitted.without


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_the_best_constant(name: str) -> None:
    x, transfer = outputs(name), TRANSFERS[name]
    mean = fit(x, 1, transfer).mean
    assert np.abs(transfer.f(mean[None])[0] - x.mean(axis=0)).max() < 1e-6
    best = transfer.divergence(np.tile(mean, (len(x), 1)), x).mean()
    for i in range(len(mean)):
        for step in (-0.05, 0.05):
            moved = mean + step * np.eye(len(mean))[i]
            assert transfer.divergence(np.tile(moved, (len(x), 1)), x).mean() > best


def test_retraction_changes_no_reconstruction() -> None:
    rng = np.random.default_rng(3)
    v, c = rng.normal(size=(5, 3)), rng.normal(size=(20, 3))
    metric = np.diag(rng.uniform(0.1, 2, 5))
    new_v, new_c = _retract(v, c, metric)
    np.testing.assert_allclose(new_c @ new_v.T, c @ v.T, atol=1e-9)
    np.testing.assert_allclose(new_v.T @ metric @ new_v, np.eye(3), atol=1e-8)


def test_old_coefficients_are_carried_over() -> None:
    x = outputs("tanh")
    first = fit(x, 3, TRANSFERS["tanh"])
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    other = replace(first, components=first.components @ turn, mean=first.mean)
    moved = first.components @ np.array([0.3, -0.1, 0.2])
    matrix, shift = other.carried_over(first.mean + moved, first.components)
    c = first.coefficients
    np.testing.assert_allclose(
        other.pre_activations(c @ matrix.T + shift), first.pre_activations(c) + moved, atol=1e-8
    )


def fixed_layer(name: str) -> tuple[FixedLayer, np.ndarray]:
    x = outputs(name)
    layer = FixedLayer(name, x.shape[1], 2, 1)
    kernel = np.random.default_rng(5).normal(size=(x.shape[1], 1)).astype(np.float32)
    layer.assign(fit(x, 2, TRANSFERS[name]), tf.constant(kernel))
    return layer, x


@pytest.mark.parametrize("name", ["leaky_relu", "tanh"])
def test_the_fixed_layer_is_a_dense_layer_and_trains_nothing(name: str) -> None:
    layer, x = fixed_layer(name)
    c = np.random.default_rng(6).normal(size=(7, 2)).astype(np.float32)
    dense = tf_keras.layers.Dense(x.shape[1], layer._f, trainable=False)
    dense.build((None, 2))
    dense.set_weights([layer.components.numpy().T, layer.mean.numpy()])
    by_hand = dense(c).numpy() @ layer.kernel.numpy()
    np.testing.assert_allclose(layer.logits(tf.constant(c)), by_hand, atol=1e-6)
    assert not layer.trainable_variables
    assert not dense.trainable_variables


@pytest.mark.parametrize("name", ["leaky_relu", "tanh"])
def test_the_students_gradient_is_the_layers_error_in_its_coordinates(name: str) -> None:
    layer, x = fixed_layer(name)
    c = tf.constant(np.random.default_rng(7).normal(size=(len(x), 2)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(c)
        value = layer.divergence(c, tf.constant(x, tf.float32))
    transfer = TRANSFERS[name]
    a = c.numpy().astype(float) @ layer.components.numpy().T + layer.mean.numpy()
    unit = float(layer.unit)
    np.testing.assert_allclose(value, transfer.divergence(a, x) / unit, rtol=1e-3, atol=1e-5)
    expected = (transfer.f(a) - x) @ layer.components.numpy() / unit
    np.testing.assert_allclose(tape.gradient(value, c), expected, rtol=1e-3, atol=1e-5)


def test_with_one_sigmoid_unit_it_is_soft_label_distillation() -> None:
    sigmoid = TRANSFERS["sigmoid"]
    a, x = np.array([[0.3], [-2.0]]), np.array([[0.8], [0.1]])
    p = sigmoid.f(a)
    binary = (x * np.log(x / p) + (1 - x) * np.log((1 - x) / (1 - p))).sum(axis=1)
    np.testing.assert_allclose(sigmoid.divergence(a, x), binary, atol=1e-9)


def test_softmax_does_not_see_a_constant() -> None:
    softmax, x = TRANSFERS["softmax"], outputs("softmax")
    a = np.random.default_rng(8).normal(size=x.shape)
    np.testing.assert_allclose(softmax.divergence(a + 5.0, x), softmax.divergence(a, x))


def test_the_layer_follows_the_teacher_from_version_to_version() -> None:
    bench = Bench(MODULE, tiny_recipe(), ())
    learner = bench._first["learner"]
    fixed = learner.model.fixed
    assert int(fixed.version) >= 3
    assert np.abs(fixed.components.numpy()).max() > 0
    sample = learner.update.sample.numpy()
    assert not sample[-1].any()
    kept = TRANSFERS["leaky_relu"].inverse(sample[:-1].astype(float))
    assert np.isfinite(kept).all()
    c = fit(sample[:-1].astype(float), 2, TRANSFERS["leaky_relu"])
    assert c.losses[-1] < c.without


def test_the_loss_without_layer_and_teacher_is_the_base_for_both() -> None:
    logits, teacher = tf.constant([[0.3], [-1.0]]), tf.constant([[1.0], [0.0]])
    labels = tf.constant([[1.0], [0.0]])
    batch = type("B", (), {"labels": labels})()
    from ctr.api import Forward

    aux = {"teacher": teacher, "divergence": tf.constant([0.5, 2.0])}
    forward = Forward(logits, aux)
    found = BregmanLoss(0.0, 0.0, 1.0)(forward, batch)
    base = LogLoss()
    expected = base(forward, batch) + base(forward._replace(logits=teacher), batch)
    np.testing.assert_allclose(found, expected)
    more = BregmanLoss(0.1, 0.0, 1.0)(forward, batch)
    np.testing.assert_allclose(more - found, [0.05, 0.2], rtol=1e-5)
    with pytest.raises(ModuleError, match="after the modules that change the model"):
        BregmanLoss(0.1, 0.5, 1.0)(Forward(logits, {}), batch)


def test_the_geometry_matters_on_digits() -> None:
    for methods in geometry((2, 3)).values():
        ours = methods.pop("Bregman PCA")
        assert ours < min(methods.values())
        assert ours < 0.6 * methods["PCA on logits, projected"]


def test_few_images_teach_more_through_the_layer() -> None:
    data = images()
    teacher = Teacher(data, steps=1500)
    by = {t: student(data, teacher, t, 100, 16, 0, 1500) for t in ("soft", "bregman")}
    assert by["bregman"][0] > by["soft"][0] + 0.03
    assert by["bregman"][1] < 0.4 * by["soft"][1]
    # Too few coefficients must fail: most of what the student lacks is lost in the compression.
    assert student(data, teacher, "bregman", 100, 4, 0, 1500)[1] > 3 * by["bregman"][1]


@pytest.mark.parametrize(
    "settings",
    [{"k": 0}, {"k": 65}, {"strength": -1.0}, {"every": 0}, {"teacher": "lr", "set": ()},
     {"set": ("hidden=[8]",)}],
)  # fmt: skip
def test_bad_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        BregmanDistillation(**settings)


@pytest.mark.parametrize("before", [[], [EnsembleModule(2)]])
def test_a_student_needs_a_layer_of_its_own(before: list) -> None:
    recipe = Recipe() if before else Recipe(model=Linear())
    with pytest.raises(ModuleError, match="last hidden layer"):
        compose(recipe, [*before, MODULE])


def test_a_wrapper_put_later_is_refused() -> None:
    recipe = compose(tiny_recipe(), [MODULE])
    schema = Schema("s", (Feature("a"), Feature("b")), (Label("click"),))
    with pytest.raises(ModuleError, match="after the modules that change the model"):
        Learner(replace(recipe, model=Ensemble(recipe.model, 2)), schema)
