"""A model that does not see some of the features."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ctr.api import Features, Forward, ModelConfig
from ctr.encoding import Layout
from ctr.errors import ConfigError, ModuleError, nearest
from ctr.models.factorized import part_of


@dataclass(frozen=True)
class LeaveOut:
    """``base`` on all features but some; a cross goes with the first of its parts to go.

    Attributes:
        base: The model.
        features: Names of the features it does not see.
    """

    base: ModelConfig
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.features:
            raise ConfigError("name at least one feature to leave out, received none.")

    @property
    def dim(self) -> int:
        """Embedding columns."""
        return self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> LeaveOutModel:
        """Creates the base on what is left.

        Raises:
            ModuleError: there is no such feature, or nothing is left.
        """
        return LeaveOutModel(self, layout, n_tasks, seed)


class LeaveOutModel(tf.Module):
    """The built form of :class:`LeaveOut`."""

    def __init__(self, config: LeaveOut, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="leave_out")
        gone = _gone(layout, config.features)
        self._part = part_of(layout, gone, False)
        self.dim = config.dim
        self.base = config.base.build(self._part.layout, n_tasks, seed)
        self.n_wide = getattr(self.base, "n_wide", n_tasks)
        self.wide = getattr(self.base, "wide", tf.Module())

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the base's output on the features that are left."""
        return self.base(self._part(features), training)


def _gone(layout: Layout, names: tuple[str, ...]) -> dict[str, bool]:
    """Returns for every feature whether it is left out."""
    features = [slot.feature for slot in layout.slots] + list(layout.numeric)
    known = [feature.name for feature in features]
    for name in names:
        if name not in known:
            raise ModuleError(
                f"leave_out: the stream has no feature {name!r}: {nearest(name, known)}"
            )
    gone = {f.name: f.name in names or any(part in names for part in f.cross) for f in features}
    if all(gone.values()):
        raise ModuleError("leave_out: no feature is left. Keep at least one.")
    return gone
