"""A distribution over independent decisions that learns by REINFORCE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

#: Weight of the past in the average reward and in the average squared gradient.
_REWARD_DECAY, _SQUARE_DECAY = 0.95, 0.999
#: Moments of the stream that are remembered.
_HISTORY = 64


class Controller(tf.Module):
    """Categorical logits per decision, all 0 at first, moved towards what is rewarded.

    ``logits += rate * mean_s (R_s - baseline_s) * d log P(choice_s) / d logits``, the gradient
    divided by the root of its average square (Adam without momentum), which makes the rate
    independent of the reward's unit. With one choice per step the baseline is a moving average of
    past rewards. With several, judged on the same examples, it is the mean reward of the *other*
    choices: it is as independent of choice s, and the examples' noise, which dwarfs what
    architectures differ by, cancels.

    Args:
        sizes: Options of each decision.
        rate: Step size of the logits.
    """

    def __init__(self, sizes: Sequence[int], rate: float) -> None:
        super().__init__(name="controller")
        n, most = len(sizes), max(sizes)
        self._sizes, self._rate = tuple(sizes), rate
        # Places beyond a decision's last option are never chosen.
        self._closed = tf.constant(
            [[0.0 if option < size else -1e9 for option in range(most)] for size in sizes]
        )
        self.logits = _state(tf.zeros([n, most]), "logits")
        self.squares = _state(tf.zeros([n, most]), "squares")
        self.average_reward = _state(tf.zeros([]), "average_reward")
        self.rewards = _state(tf.zeros([], tf.int64), "rewards")
        self.steps = _state(tf.zeros([], tf.int64), "steps")
        self.history = _state(tf.zeros([_HISTORY, n, most]), "history")
        self.history_steps = _state(tf.fill([_HISTORY], tf.constant(-1, tf.int64)), "history_steps")
        self.history_every = _state(tf.ones([], tf.int64), "history_every")

    def log_probs(self) -> tf.Tensor:
        """Returns float32[D, M], log probabilities of the options of each decision."""
        return tf.nn.log_softmax(self.logits + self._closed)

    def sample(self, n: int, seed: tf.Tensor) -> tf.Tensor:
        """Returns int32[n, D], independent choices; ``seed`` int64[2] decides them."""
        shape = [n, *self.logits.shape]
        uniform = tf.random.stateless_uniform(shape, seed, minval=1e-20, maxval=1.0)
        gumbel = -tf.math.log(-tf.math.log(uniform))
        return tf.argmax(self.log_probs() + gumbel, axis=2, output_type=tf.int32)

    def learn(
        self, chosen: tf.Tensor, rewards: tf.Tensor, counts: tf.Tensor, active: tf.Tensor
    ) -> None:
        """Moves the logits.

        Args:
            chosen: int32[S, D], choices that were tried on the same examples.
            rewards: float32[S].
            counts: bool[], False leaves everything as it is.
            active: bool[], False averages the rewards and leaves the logits.
        """
        active = tf.logical_and(counts, active)
        n = rewards.shape[0]
        mean = tf.reduce_mean(rewards)
        known = self.rewards.read_value() > 0
        past = tf.where(known, self.average_reward, mean)
        baseline = (n * mean - rewards) / (n - 1) if n > 1 else past[None]
        probs = tf.exp(self.log_probs())
        towards = tf.one_hot(chosen, probs.shape[1]) - probs
        gradient = tf.reduce_mean((rewards - baseline)[:, None, None] * towards, axis=0)
        square = _SQUARE_DECAY * self.squares + (1.0 - _SQUARE_DECAY) * tf.square(gradient)
        steps = self.steps.read_value() + 1
        bias = 1.0 - tf.pow(_SQUARE_DECAY, tf.cast(steps, tf.float32))
        step = self._rate * gradient / (tf.sqrt(square / bias) + 1e-12)
        average = _REWARD_DECAY * past + (1.0 - _REWARD_DECAY) * mean
        self.average_reward.assign(tf.where(counts, average, self.average_reward))
        self.rewards.assign_add(tf.cast(counts, tf.int64))
        self.logits.assign_add(tf.where(active, step, tf.zeros_like(step)))
        self.squares.assign(tf.where(active, square, self.squares))
        self.steps.assign_add(tf.cast(active, tf.int64))

    def between_launches(self) -> None:
        """Remembers the distribution now and then; a full memory keeps every other moment."""
        now = int(self.rewards.numpy())
        steps, history = self.history_steps.numpy().copy(), self.history.numpy().copy()
        n = int((steps >= 0).sum())
        if n == _HISTORY:
            n //= 2
            steps[:n], history[:n] = steps[1::2], history[1::2]
            steps[n:] = -1
            self.history_every.assign(int(steps[n - 1] - steps[n - 2]))
        if n and now - steps[n - 1] < int(self.history_every.numpy()):
            return
        steps[n], history[n] = now, np.exp(self.log_probs().numpy())
        self.history.assign(history)
        self.history_steps.assign(steps)

    def probabilities(self) -> list[NDArray[np.float32]]:
        """Returns the distribution of each decision."""
        return self._split(np.exp(self.log_probs().numpy()))

    def entropies(self) -> tuple[list[int], list[list[float]]]:
        """Returns the steps that are remembered, and every decision's entropy in nats at each."""
        used = self.history_steps.numpy() >= 0
        return self.history_steps.numpy()[used].tolist(), [
            [_entropy(probs) for probs in self._split(moment)]
            for moment in self.history.numpy()[used]
        ]

    def _split(self, probs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [line[:size] for line, size in zip(probs, self._sizes, strict=True)]


def _state(value: tf.Tensor, name: str) -> tf.Variable:
    # Not trainable, or the loss's own gradient would be asked to move it.
    return tf.Variable(value, trainable=False, name=name)


def _entropy(probs: NDArray[np.float32]) -> float:
    positive = probs[probs > 0.0].astype(np.float64)
    return float(max(0.0, -(positive * np.log(positive)).sum()))
