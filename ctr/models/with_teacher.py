"""A model that is served, and a teacher beside it that is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ctr.api import Features, Forward, ModelConfig, Rows
from ctr.encoding import Layout

#: Keeps the teacher's initial values apart from the student's.
_TEACHER_SEED = 5_003


@dataclass(frozen=True)
class WithTeacher:
    """A model that is served, and a teacher beside it that is not.

    Both have their own columns in the fused table and their own dense variables, so neither
    changes what the other one computes.

    Attributes:
        base: The student.
        teacher: The teacher.
    """

    base: ModelConfig
    teacher: ModelConfig

    @property
    def dim(self) -> int:
        """Embedding columns of both."""
        return self.base.dim + self.teacher.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> WithTeacherModel:
        """Creates the variables; equal seeds give equal bits."""
        return WithTeacherModel(self, layout, n_tasks, seed)


class WithTeacherModel(tf.Module):
    """The built form of :class:`WithTeacher`."""

    def __init__(self, config: WithTeacher, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="with_teacher")
        self.student = config.base.build(layout, n_tasks, seed)
        self.teacher = config.teacher.build(layout, n_tasks, seed + _TEACHER_SEED)
        self.dim = config.dim
        self._dim = config.base.dim
        self._n_wide = getattr(self.student, "n_wide", n_tasks)
        self.n_wide = self._n_wide + getattr(self.teacher, "n_wide", n_tasks)
        self.wide = _WideParts([m.wide for m in (self.student, self.teacher) if hasattr(m, "wide")])

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns the student's logits float32[B, T]; those of the teacher are in ``aux``."""
        own, rest = self.shares(features)
        student = self.student(own, training)
        # Asked for even when serving, where nobody uses it and the graph drops it: the variables
        # of its layers are created by the first call, whatever that call is for.
        teacher = self.teacher(rest, training).logits
        return student._replace(aux={**student.aux, "teacher": teacher})

    def shares(self, features: Features) -> tuple[Features, Features]:
        """Returns the student's and the teacher's share of what was looked up."""
        own = _columns(features, slice(0, self._dim), slice(0, self._n_wide))
        rest = _columns(features, slice(self._dim, None), slice(self._n_wide, None))
        return own, rest


def _columns(features: Features, dim: slice, wide: slice) -> Features:
    rows = Rows(features.rows.embedding[..., dim], features.rows.wide[..., wide])
    return features._replace(
        vectors=features.vectors[..., dim], linear=features.linear[..., wide], rows=rows
    )


class _WideParts(tf.Module):
    """The wide parts of both models, for the optimizer that moves such parts."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(name="wide")
        self.parts = parts
