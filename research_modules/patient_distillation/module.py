"""Patient and consistent distillation as a research module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ctr.api import ModelConfig
from ctr.config import override
from ctr.errors import ConfigError, nearest
from ctr.module import ModuleInfo
from ctr.recipe import Recipe, named_recipe
from research_modules.patient_distillation.matching import (
    CONSISTENCY,
    MatchedPair,
    MatchingLoss,
    PatientUpdate,
)
from research_modules.patient_distillation.views import VIEWS


@dataclass(frozen=True)
class PatientDistillation:
    """A student matches its teacher's function on many views of the impressions seen so far.

    The teacher learns from labels, one pass. The student learns from the teacher: on each fresh
    batch, and then ``reps`` times on views of rows out of a bounded buffer, which the teacher
    sees as well (consistent) and which need no label. Only the student is served, and each
    impression is predicted before any of this.

    Paper: Beyer, Zhai, Royer, Markeeva, Anil, Kolesnikov 2022, "Knowledge distillation: a good
    teacher is patient and consistent" (arXiv:2106.05237), section 3, function matching.
    Deviations: the teacher learns the same stream; images' crops become recombined fields, masks
    and mixup of embeddings; AdaGrad at a constant rate takes the place of Adam's schedule.
    Reduces to: distillation on the impressions themselves for ``reps = 0``; for ``view = "none"``
    to plain repetition.

    Attributes:
        reps: Extra updates of the student per batch.
        view: ``recombine`` fields of different rows, ``mask`` some, ``mixup`` embeddings, or
            ``none``.
        consistency: ``same`` view for both; ``fixed`` gives the teacher the row as it was, and
            ``independent`` a view of its own. The latter two are there to be compared with.
        teacher: Name of the teacher's recipe.
        set: Overrides of the teacher's model.
        groups: Lists of features that stay together when rows are recombined, such as all of a
            user's and all of an ad's. Real fields hang together; apart they make impressions
            that never occur.
        hidden: Share of fields that a mask hides.
        buffer: Newest rows that views are made of.
        strength: Weight of the distance to the teacher.
        labels: Weight of labels in the student's loss; 0 learns from the teacher alone.
        temperature: Of the distance; above 1 bends the probability scale of a small student.
        start_examples: Examples of the stream before the student begins; a young teacher knows
            nothing. A calibrator learns the silent student's error and is slow to forget it.
    """

    reps: int = 4
    view: str = "recombine"
    consistency: str = "same"
    teacher: str = "wide_dcn"
    set: tuple[str, ...] = ("dim=32", "hidden=[256, 64]")
    groups: tuple[tuple[str, ...], ...] = ()
    hidden: float = 0.3
    buffer: int = 4096
    strength: float = 1.0
    labels: float = 0.0
    temperature: float = 1.0
    start_examples: int = 0
    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="patient_distillation",
        paper="A good teacher is patient and consistent (arXiv:2106.05237), section 3",
        extends=frozenset({"model", "loss", "update"}),
    )

    def __post_init__(self) -> None:
        # A page of TOML gives lists of lists.
        object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        for what, value, known in (
            ("view", self.view, VIEWS), ("consistency", self.consistency, CONSISTENCY),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(
                    f"patient_distillation: no {what} {value!r}: {nearest(value, known)}"
                )
        if min(self.reps, self.start_examples, self.strength, self.labels) < 0 or self.buffer < 1:
            raise ConfigError(
                "patient_distillation: reps, start_examples, strength and labels must be at least "
                f"0 and buffer at least 1, received {self.reps}, {self.start_examples}, "
                f"{self.strength}, {self.labels} and {self.buffer}."
            )
        if not 0.0 <= self.hidden < 1.0 or not self.temperature > 0.0:
            raise ConfigError(
                "patient_distillation: hidden must be at least 0 and below 1 and temperature "
                f"above 0, received {self.hidden} and {self.temperature}."
            )
        self._teacher()

    def _teacher(self) -> ModelConfig:
        return override(named_recipe(self.teacher).model, self.set)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with a teacher beside its model and patience in its update."""
        return replace(
            recipe,
            model=MatchedPair(recipe.model, self._teacher()),
            loss=MatchingLoss(
                self.strength, self.labels, self.temperature, self.start_examples, recipe.loss
            ),
            update=PatientUpdate(
                recipe.update, self.reps, self.view, self.consistency, self.hidden, self.buffer,
                self.groups, self.strength, self.temperature, self.start_examples,
            ),
        )  # fmt: skip
