"""Low-rank cross layers whose crosses may grow from nothing while the embeddings settle."""

from __future__ import annotations

import tensorflow as tf
import tf_keras
from tensorflow_recommenders.layers.feature_interaction import Cross

from ctr.schedules import Ramp


class CrossLayers(tf.Module):
    """``x <- x + a * x0 * (U V x + b)``, once per layer, with ``x0`` the input.

    The factor ``a`` is 1, or a ramp over the examples seen, or (ReZero) a learned number per layer
    that starts at 0.

    Paper: Wang et al. 2021, "DCN V2" (arXiv:2008.13535), eq. 1 and 2; the factor from "On the
    Factory Floor" (arXiv:2209.05310), section 4.3.
    Deviations: a bias, as in the former paper; the latter prints none.

    Args:
        n_layers: Number of layers; with 0 the input comes back.
        rank: Rank of U V; None for a full matrix.
        ramp: Examples over which ``a`` grows from 0 to 1; 0 for a constant 1.
        rezero: True learns ``a``.
        seed: Decides the kernels, by ``seed, seed + 1, ...``.
    """

    def __init__(self, n_layers: int, rank: int | None, ramp: int, rezero: bool, seed: int) -> None:
        super().__init__(name="cross")
        self._ramp = Ramp(float(ramp)) if ramp else None
        self.layers = [
            Cross(
                projection_dim=rank,
                kernel_initializer=tf_keras.initializers.GlorotNormal(seed + i),
            )
            for i in range(n_layers)
        ]
        self.scales = [tf.Variable(0.0, name="scale") for _ in self.layers] if rezero else []

    def __call__(self, x0: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
        """Returns the crossed inputs, float32[B, C].

        Args:
            x0: float32[B, C].
            seen: int64 scalar, examples learned before.
        """
        x = x0
        for i, layer in enumerate(self.layers):
            crossed = layer(x0, x)
            if self.scales:
                crossed = x + self.scales[i] * (crossed - x)
            elif self._ramp:
                # Exact at both ends, where x + a * (crossed - x) would round.
                a = self._ramp.at(seen)
                crossed = (1.0 - a) * x + a * crossed
            x = crossed
        return x
