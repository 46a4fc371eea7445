"""A recipe: every replaceable part of a learner, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from ctr.api import (
    Calibrator,
    FeatureTransform,
    Loss,
    ModelConfig,
    Probe,
    Sampler,
    StatefulTransform,
)
from ctr.calibration import SliceBias
from ctr.errors import ConfigError, nearest
from ctr.losses import LogLoss
from ctr.models import Dlrm, Linear, Mlp, WideDcn
from ctr.optimizers import Optimizers
from ctr.sampling import KeepAll
from ctr.update import GradientUpdate, Update


@dataclass(frozen=True)
class Recipe:
    """What to learn with; see ``ctr.api`` for what each slot must offer.

    Attributes:
        model: What turns features into logits.
        features: Changes of the encoded features, in order.
        loss: Per-example loss.
        sampler: Which examples are trained on.
        optimizer: Which optimizer moves which variables.
        update: How a batch changes the variables.
        calibrator: What maps logits to calibrated logits.
        probes: What watches without changing anything.
        batch_size: Examples that share one set of weights, B. Smaller is fresher and dearer.
        table_rows: Rows of the fused table; 5 to 10 times the live ids keeps collisions rare.
        init_scale: Half width of the embeddings' initial values.
    """

    model: ModelConfig = field(default_factory=WideDcn)
    features: tuple[FeatureTransform | StatefulTransform, ...] = ()
    loss: Loss = field(default_factory=LogLoss)
    sampler: Sampler = field(default_factory=KeepAll)
    optimizer: Optimizers = field(default_factory=Optimizers)
    update: Update = field(default_factory=GradientUpdate)
    calibrator: Calibrator = field(default_factory=SliceBias)
    probes: tuple[Probe, ...] = ()
    batch_size: int = 128
    table_rows: int = 1 << 20
    init_scale: float = 0.01

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.table_rows < 2:
            raise ConfigError(
                f"batch_size must be at least 1 and table_rows at least 2, received "
                f"{self.batch_size} and {self.table_rows}."
            )


def parts(recipe: Recipe) -> list[Any]:
    """Returns every part of a recipe, and the parts these are made of, outer ones first."""
    return [part for f in fields(recipe) for part in _within(getattr(recipe, f.name))]


def _within(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [part for item in value for part in _within(item)]
    inner = fields(value) if is_dataclass(value) else ()
    return [value, *(part for f in inner for part in _within(getattr(value, f.name)))]


def side_columns(recipe: Recipe, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Returns ``also`` and the side columns that a recipe's parts ask for by their ``columns``."""
    asked = {column for part in parts(recipe) for column in getattr(part, "columns", ())}
    return tuple(sorted(asked | set(also)))


_MODELS = {"lr": Linear, "wide_dcn": WideDcn, "dlrm": Dlrm, "mlp": Mlp}

#: Names that ``octr train --recipe`` takes.
RECIPES = tuple(_MODELS)


def named_recipe(name: str) -> Recipe:
    """Returns the shipped recipe of this name; all share one set of defaults but the model.

    Raises:
        ConfigError: there is none; the message names the nearest one.
    """
    if name not in _MODELS:
        raise ConfigError(f"no recipe {name!r}: {nearest(name, _MODELS)}")
    return Recipe(model=_MODELS[name]())
