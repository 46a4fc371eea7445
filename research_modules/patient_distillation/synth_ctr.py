"""Function matching where the truth is known: ``python -m research_modules.patient_distillation.synth_ctr``.

Six hashed fields with linear and pairwise effects. A teacher learns a long stretch from labels;
then a small student sees the next short stretch once. Fields are drawn independently, so a
recombined impression is as likely as any: the gain here is an upper bound for real logs.
"""  # noqa: E501

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ctr.api import Features
from ctr.calibration import NoCalibration
from ctr.data.examples import Chunk
from ctr.inputs import features as assemble
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.optimizers import AdaGrad, KerasOptimizer, Optimizers
from ctr.recipe import Recipe
from ctr.schema import Feature, Label, Schema
from research_modules.patient_distillation.module import PatientDistillation

N_FIELDS, N_IDS, BATCH = 6, 500, 256
SCHEMA = Schema("synth", tuple(Feature(f"f{i}") for i in range(N_FIELDS)), (Label("click"),))

#: Arms by name: settings of the module.
ARMS: dict[str, dict[str, Any]] = {
    "labels": {"reps": 0, "strength": 0.0, "labels": 1.0},
    "same view, R=1": {"reps": 0, "view": "none"},
    "same view, R=4": {"reps": 3, "view": "none"},
    "same view, R=16": {"reps": 15, "view": "none"},
    "mask, teacher sees all, R=4": {"reps": 3, "view": "mask", "consistency": "fixed"},
    "mask, independent, R=4": {"reps": 3, "view": "mask", "consistency": "independent"},
    "mask, shared, R=4": {"reps": 3, "view": "mask"},
    "mask, shared, R=16": {"reps": 15, "view": "mask"},
    "mixup, R=4": {"reps": 3, "view": "mixup"},
    "recombination, R=4": {"reps": 3},
    "recombination, R=16": {"reps": 15},
}


class World:
    """Zipf-distributed ids, and a logit of linear and pairwise effects."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        share = np.arange(1, N_IDS + 1) ** -1.1
        self._share = share / share.sum()
        self._linear = 0.5 * rng.standard_normal((N_FIELDS, N_IDS))
        self._vectors = 0.5 * rng.standard_normal((N_FIELDS, N_IDS, 4))

    def draw(self, n: int, seed: int) -> Stretch:
        """Draws ``n`` impressions."""
        rng = np.random.default_rng(seed)
        ids = rng.choice(N_IDS, (n, N_FIELDS), p=self._share)
        fields = np.arange(N_FIELDS)
        z = self._vectors[fields, ids]
        pairs = 0.5 * ((z.sum(axis=1) ** 2).sum(axis=1) - (z**2).sum(axis=(1, 2)))
        prob = 1 / (1 + np.exp(1.9 - self._linear[fields, ids].sum(axis=1) - pairs))
        click = rng.random(n) < prob
        return Stretch((1 + ids + N_IDS * fields).astype(np.int32), prob, click)


class Stretch(NamedTuple):
    """Impressions with their truth.

    Attributes:
        ids: int32[n, 6], rows of the table.
        prob: float64[n], true probabilities.
        click: bool[n].
    """

    ids: NDArray[np.int32]
    prob: NDArray[np.float64]
    click: NDArray[np.bool_]

    def excess(self, guess: NDArray[np.float64]) -> float:
        """Returns the expected log loss above that of the truth, nats."""
        return kl(self.prob, guess)


def kl(target: NDArray, guess: NDArray) -> float:
    """Returns the mean divergence between click probabilities, nats."""
    p, q = (np.clip(np.asarray(v, float), 1e-7, 1 - 1e-7) for v in (target, guess))
    return float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean())


def learn(learner: Learner, data: Stretch) -> NDArray[np.float64]:
    """Learns a stretch and returns its progressive predictions."""
    k, b = learner.chunk_shape
    found = []
    for at in range(0, len(data.click), k * b):
        ids, click = data.ids[at : at + k * b], data.click[at : at + k * b]
        short = k * b - len(click)
        chunk = Chunk(
            np.pad(ids, ((0, short), (0, 0))).reshape(k, b, N_FIELDS),
            np.zeros((k, b, 0), np.float32),
            np.pad(click, (0, short)).astype(np.float32).reshape(k, b, 1),
            np.pad(np.ones(len(click), np.float32), (0, short)).reshape(k, b),
            {},
        )
        found.append(learner.learn(chunk).reshape(-1)[: len(click)].astype(float))
    return np.concatenate(found)


def predictions(learner: Learner, ids: NDArray[np.int32]) -> tuple[NDArray, NDArray]:
    """Returns the student's and the teacher's probabilities."""
    inputs: Features = assemble(
        learner.layout, tf.constant(ids), learner.table.lookup(ids), tf.zeros([len(ids), 0]),
        learner.examples.read_value(),
    )  # fmt: skip
    forward = learner.model(inputs, training=False)
    student, teacher = forward.logits, forward.aux["teacher"]
    return tf.sigmoid(student).numpy()[:, 0], tf.sigmoid(teacher).numpy()[:, 0]


def _taught(learner: Any) -> list[tf.Module]:
    """Returns the parts in which a teacher's learning is stored, optimizer slots included."""
    return [learner.model, learner.table, learner.update.base]


class Study:
    """A teacher that has learned a long stretch, and students that begin where it stands.

    Args:
        seed: Decides world and models.
        teacher_batches: Batches the teacher learns from labels alone.
        student_batches: Batches both see after that.
        rate: Rate of embeddings and tower.
    """

    def __init__(self, seed: int, teacher_batches: int, student_batches: int) -> None:
        world = World(seed)
        self.seed = seed
        self.early = world.draw(teacher_batches * BATCH, 3 * seed)
        self.late = world.draw(student_batches * BATCH, 3 * seed + 1)
        self.held_out = world.draw(20_000, 3 * seed + 2)
        self.base = Recipe(
            model=Mlp(dim=4, hidden=(16,)), batch_size=BATCH, table_rows=1 + N_FIELDS * N_IDS,
            calibrator=NoCalibration(),
        )  # fmt: skip
        before = self._learner({"start_examples": 1 << 60}, 0.1)
        learn(before, self.early)
        self._before = before

    def _learner(self, settings: dict[str, Any], rate: float) -> Learner:
        module = PatientDistillation(
            teacher="mlp", set=("dim=8", "hidden=[64, 32]"), buffer=BATCH, **settings
        )
        optimizer = Optimizers(embedding=AdaGrad(rate), tower=KerasOptimizer(rate=0.2 * rate))
        return Learner(
            compose(replace(self.base, optimizer=optimizer), [module]), SCHEMA, self.seed
        )

    def student(
        self,
        settings: dict[str, Any],
        rate: float = 0.1,
        reuse: Learner | None = None,
        data: Stretch | None = None,
    ) -> tuple[NDArray[np.float64], Learner]:
        """Learns the late stretch from where the teacher stands.

        Args:
            settings: Of the module.
            rate: Rate of embeddings; the tower's is a fifth.
            reuse: A learner of another seed by the same settings; begins anew, compiled already.
            data: What is learned in place of the late stretch.

        Returns:
            Progressive predictions, and the learner at the end.
        """
        learner = self._learner(settings, rate)
        if reuse is not None:
            for ours, fresh in zip(reuse.variables, learner.variables, strict=True):
                ours.assign(fresh)
            learner = reuse
        for ours, theirs in zip(_taught(learner), _taught(self._before), strict=True):
            for variable, taught in zip(ours.variables, theirs.variables, strict=True):
                variable.assign(taught)
        return learn(learner, data or self.late), learner

    def scores(self, progressive: NDArray[np.float64], learner: Learner) -> dict[str, float]:
        """Returns how far a student is from the truth and from its teacher."""
        student, teacher = predictions(learner, self.held_out.ids)
        return {
            "excess": self.held_out.excess(student),
            "kl": kl(teacher, student),
            "progressive": self.late.excess(progressive),
            "teacher": self.held_out.excess(teacher),
            "bias": float(student.mean() - teacher.mean()),
        }


def main() -> None:
    """Prints the table; each arm takes the better of two rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher-batches", type=int, default=3000)
    parser.add_argument("--student-batches", type=int, default=100)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    args = parser.parse_args()
    studies = [
        Study(seed, args.teacher_batches, args.student_batches) for seed in range(args.seeds)
    ]
    for name in args.arms:
        settings = ARMS[name]
        by_rate: dict[float, list[dict[str, float]]] = {}
        for rate in args.rates:
            learner = None
            for study in studies:
                progressive, learner = study.student(settings, rate, learner)
                by_rate.setdefault(rate, []).append(study.scores(progressive, learner))
        best = min(by_rate, key=lambda r: np.mean([x["excess"] for x in by_rate[r]]))
        runs = by_rate[best]
        found = {key: [run[key] for run in runs] for key in runs[0]}
        print(
            f"{name:<30} rate {best:<5} excess {np.mean(found['excess']):.4f} "
            f"({', '.join(f'{x:.4f}' for x in found['excess'])})  KL {np.mean(found['kl']):.4f}  "
            f"progressive {np.mean(found['progressive']):.4f}  "
            f"teacher {np.mean(found['teacher']):.4f}  bias {np.mean(found['bias']):+.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
