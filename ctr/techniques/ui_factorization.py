"""UI factorization: how good an ad is, apart from how it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ctr.encoding import Encoder
from ctr.errors import ConfigError, nearest
from ctr.models import Linear
from ctr.models.factorized import Factorized
from ctr.module import ModuleInfo
from ctr.recipe import Recipe


def in_treatment(
    encoder: Encoder,
    ids: NDArray[np.int32],
    numeric: NDArray[np.float32],
    treatment: Mapping[str, str | float],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Returns encoded examples as if all had been shown in one way.

    Predictions for a reference treatment rank items by quality alone, whatever way each of them
    was shown in. Works with any model; only a factorized one has learned the two apart.

    Args:
        encoder: The learner's encoder.
        ids: int32[N, S].
        numeric: float32[N, M].
        treatment: A value for every presentation feature (``ui = true``) that is no cross.

    Raises:
        ConfigError: a presentation feature has no value, or there is none of a given name.
    """
    own = [f.name for f in encoder.schema.features if f.ui and not f.cross]
    for name in treatment:
        if name not in own:
            raise ConfigError(
                f"treatment: {name!r} is no presentation feature: {nearest(name, own)}"
            )
    missing = [name for name in own if name not in treatment]
    if missing:
        raise ConfigError(f"treatment: give a value for {', '.join(missing)} as well.")
    values = {name: pa.array([treatment.get(name)]) for name in encoder.columns}
    shown = encoder.encode(pa.RecordBatch.from_pydict(values), "the treatment")
    ids, numeric = ids.copy(), numeric.copy()
    for slot in encoder.layout.slots:
        parts = slot.feature.cross or (slot.feature.name,)
        if all(part in own for part in parts):
            ids[:, slot.start : slot.stop] = shown.ids[:, slot.start : slot.stop]
        elif any(part in own for part in parts):
            raise ConfigError(
                f"the cross {slot.feature.name!r} mixes presentation with other features, so it "
                "has no value for a treatment. Remove it from the schema."
            )
    for place, feature in enumerate(encoder.layout.numeric):
        if feature.name in own:
            numeric[:, place] = shown.numeric[:, place]
    return ids, numeric


@dataclass(frozen=True)
class UiFactorization:
    """Makes the recipe's model the quality half of a factorized one.

    Paper: "On the Factory Floor" (arXiv:2209.05310), section 6.
    Deviations: transfer function, dimensions and gauge are not in the paper. Each vector has a
    constant coordinate, so pure quality and pure presentation have terms of their own.
    Reduces to: with ``dims = 0`` and ``sigmoid``, an additive position effect on the log-odds;
    with ``dims = 0`` and ``exp``, the examination model.

    Attributes:
        dims: Further dimensions in which quality and presentation interact.
        hidden: Units of the presentation half's hidden layers.
        transfer: ``sigmoid`` or ``exp``.
    """

    dims: int = 2
    hidden: tuple[int, ...] = (32,)
    transfer: str = "sigmoid"

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="ui_factorization",
        paper="On the Factory Floor (arXiv:2209.05310), section 6",
        extends=frozenset({"model"}),
    )

    def __post_init__(self) -> None:
        self._model(Linear())

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with its model split."""
        return replace(recipe, model=self._model(recipe.model))

    def _model(self, base: object) -> Factorized:
        return Factorized(base, self.dims, tuple(self.hidden), self.transfer)  # type: ignore[arg-type]
