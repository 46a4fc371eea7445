from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ctr.errors import ConfigError
from ctr.optimizers import KerasOptimizer


def losses(config: KerasOptimizer, steps: int = 60) -> np.ndarray:
    """Fits two weights to a plane with a compiled step; returns the loss before each step."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 1.0, (64, 2)).astype(np.float32)
    y = x @ np.array([[0.7], [0.4]], np.float32) + 0.2
    # Clippy bounds steps by a share of the weight, so it cannot start at 0.
    weights, bias = tf.Variable([[0.2], [0.2]]), tf.Variable([0.1])
    optimizer = config.build([weights, bias])

    @tf.function(jit_compile=True)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.matmul(x, weights) + bias - y))
        optimizer.apply(tape.gradient(loss, [weights, bias]))
        return loss

    return np.array([step().numpy() for _ in range(steps)])


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("Adagrad", 0.1),
        ("Adam", 0.05),
        ("AdamW", 0.05),
        ("Nadam", 0.05),
        ("Ftrl", 0.1),
        ("SGD", 0.1),
        ("ClippyAdagrad", 0.1),
    ],
)
def test_optimizers_run_compiled_and_descend(name: str, rate: float) -> None:
    series = losses(KerasOptimizer(name, rate))
    assert series[-1] < 0.2 * series[0]


def test_gradients_are_clipped() -> None:
    free = losses(KerasOptimizer("SGD", 0.1), 2)
    clipped = losses(KerasOptimizer("SGD", 0.1, clip_norm=0.01), 2)
    assert free[1] < clipped[1] < clipped[0]


def test_weight_decay_reaches_the_optimizer() -> None:
    plain, decayed = (
        losses(KerasOptimizer("AdamW", 0.05, weight_decay=decay), 40) for decay in (0.0, 0.5)
    )
    assert plain[-1] < decayed[-1]


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="no optimizer 'Adgrad': did you mean 'Adagrad'"):
        KerasOptimizer("Adgrad").build([])


def test_option_the_optimizer_does_not_take() -> None:
    with pytest.raises(ConfigError, match="optimizer SGD"):
        KerasOptimizer("SGD", rate="fast").build([tf.Variable([1.0])])  # type: ignore[arg-type]


def test_slots_belong_to_the_module() -> None:
    state = KerasOptimizer("Adam").build([tf.Variable([1.0, 2.0])])
    assert sum(tuple(v.shape) == (2,) for v in state.variables) >= 2
