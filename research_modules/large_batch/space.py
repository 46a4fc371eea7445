"""What is tuned, for every optimizer alike but for the range of its rate."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from research_modules.large_batch.rules import Settings

#: Ranges of the peak rate: four decades for LARS, whose rate is multiplied by a trust ratio.
RATES = {
    "nesterov": {"low": 1e-3, "high": 1.0, "log": True},
    "lars": {"low": 0.1, "high": 300.0, "log": True},
    "adam": {"low": 1e-4, "high": 0.1, "log": True},
    "lamb": {"low": 1e-3, "high": 1.0, "log": True},
}


def space(optimizer: str, **more: Any) -> dict[str, Any]:
    """Returns the tuned parameters of an optimizer: path -> range or values.

    Args:
        optimizer: A name of ``RATES``.
        more: Further parameters, after the common ones.
    """
    return {
        "rate": RATES[optimizer],
        "one_minus_beta1": {"low": 0.01, "high": 0.5, "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
        "warmup": {"low": 0.0, "high": 0.5},
        **more,
    }


class Knobs(tf.Module):
    """Hyper-parameters as variables, so that all trials share one compiled graph.

    Args:
        total: Steps of one training.
        fall: True lets the rate fall to its end over them; False keeps it after the warm-up.
    """

    def __init__(self, total: int, fall: bool) -> None:
        super().__init__(name="knobs")
        self._total = total
        self._values = {
            name: tf.Variable(1.0, trainable=False, name=name)
            for name in ("rate", "one_minus_beta1", "weight_decay", "warmup", "power")
        }
        self.settings = Settings(**self._values, total=total if fall else 0)

    def turn(self, choice: dict[str, Any]) -> None:
        """Takes over a choice; its ``warmup`` is a share of all steps."""
        for name, variable in self._values.items():
            value = float(choice.get(name, 2.0 if name == "power" else 0.0))
            variable.assign(round(value * self._total) if name == "warmup" else value)
