"""What models learn of position and quality, against the simulator's truth.

Run as ``python tests/benchmarks/bench_presentation.py [--impressions N] [--seeds 0 1]
[--randomised R] [--only TEXT]``. Each arm learns the first 80 % of a simulated stream in one pass
and is asked about the rest without learning it. One line per arm and seed:

* ``loss``: progressive log loss of the second half of the learned part;
* ``exam``: mean rate at positions 2, 3, 4 over that at position 1, all else equal, and ``err``,
  the mean relative error of these ratios;
* ``corr``: correlation of the log-odds in a reference treatment with the true quality;
* ``level``: mean prediction in the reference treatment over the truth, minus 1;
* ``kl``: divergence from the true rates in treatments drawn uniformly, x 1000;
* ``bias``: root mean square over positions of sum(prediction) / sum(true rate) - 1 on pages in
  random order.
"""

import argparse
import dataclasses
import os

import numpy as np
from one_pass import log_loss, one_pass

from ctr.calibration import NoCalibration, SliceBias
from ctr.encoding import Encoder
from ctr.learner import Learner
from ctr.models import Mlp
from ctr.module import compose
from ctr.recipe import Recipe
from ctr.simulator import WorldConfig, simulate_examples
from ctr.techniques.bias_constraints import BiasConstraints
from ctr.techniques.ui_factorization import UiFactorization, in_treatment

BASE = Mlp(dim=8, hidden=(64, 32))
#: Bound on a slice's mean error on pages in random order.
BOUND = {"slices": ("slot",), "column": "randomised"}
SETTINGS = {"weight": 1.0, "alpha": 0.02, "rate": 0.002, "ramp_examples": 20_000}


def arms(settings):
    bound = BiasConstraints(**BOUND, **{**SETTINGS, **settings})
    additive = UiFactorization(dims=0)
    return {
        "no presentation": ((), SliceBias()),
        "position as feature": ((), SliceBias()),
        "position as feature, no calibrator": ((), NoCalibration()),
        "position as feature, bound": ((bound,), NoCalibration()),
        "sigmoid 0": ((additive,), SliceBias()),
        "sigmoid 0, bound": ((additive, bound), NoCalibration()),
        "sigmoid 2": ((UiFactorization(dims=2),), SliceBias()),
        "sigmoid 2, bound": ((UiFactorization(dims=2), bound), NoCalibration()),
        "exp 0": ((UiFactorization(dims=0, transfer="exp"),), SliceBias()),
        "exp 0, no calibrator": ((UiFactorization(dims=0, transfer="exp"),), NoCalibration()),
        "exp 0, bound": ((UiFactorization(dims=0, transfer="exp"), bound), NoCalibration()),
        "exp 0, bound, calibrator": (
            (UiFactorization(dims=0, transfer="exp"), bound), SliceBias(),
        ),
    }  # fmt: skip


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


class World:
    """A simulated stream and what is true of its last fifth in any treatment."""

    def __init__(self, n, seed, share):
        self.config = WorldConfig(randomised=share)
        found = simulate_examples(n, seed, self.config)
        self._schema, self._table = found.schema, found.examples
        self.n, self.cut = n, int(0.8 * n)
        self.labels = self._table["click"].to_numpy().astype(np.float32)
        self.marks = self._table["randomised"].to_numpy().astype(np.float32)
        late = slice(self.cut, n)
        self.prob = found.truth["p_click"].to_numpy()[late].astype(np.float64)
        self.position = self._table["position"].to_numpy()[late]
        self.random = self.marks[late] == 1.0
        self.examination = np.array(self.config.examination)
        # Every fourth row is asked about in other treatments: shuffled pages are in it as well.
        rng = np.random.default_rng(seed)
        self.asked = np.flatnonzero(rng.random(n - self.cut) < 0.25)
        self.logit, self._base = (
            found.truth[name].to_numpy()[late][self.asked].astype(np.float64)
            for name in ("quality_logit", "base_offset")
        )
        self.slot = rng.integers(0, len(self.examination), len(self.asked))
        self.treatment = rng.integers(0, len(self.config.treatments), len(self.asked))
        self._encoded = {}

    def encoded(self, presentation):
        """Returns schema, ids and numerics, with the features of presentation or without."""
        if presentation not in self._encoded:
            schema = self._schema
            if not presentation:
                plain = tuple(f for f in schema.features if not f.ui)
                schema = dataclasses.replace(schema, features=plain, slices=("device",))
            encoder, parts = Encoder(schema, 1 << 18), []
            for batch in self._table.to_batches(max_chunksize=65_536):
                parts.append(encoder.encode(batch, "simulated"))
            ids = np.concatenate([part.ids for part in parts])
            numeric = np.concatenate([part.numeric for part in parts])
            self._encoded[presentation] = (schema, ids, numeric)
        return self._encoded[presentation]

    def rate(self, slot, treatment):
        effect = np.array(self.config.treatment_logits)[treatment]
        seen = self.examination[slot]
        in_window = self.config.labels[0].in_window()
        return seen * sigmoid(self.logit + effect + self._base) * in_window


def measure(world, modules, calibrator, presentation, seed, batch_size):
    recipe = compose(
        Recipe(model=BASE, calibrator=calibrator, batch_size=batch_size, table_rows=1 << 18),
        modules,
    )
    schema, ids, numeric = world.encoded(presentation)
    learner = Learner(recipe, schema, seed)
    prob, cpu = one_pass(
        learner, ids[: world.cut], numeric[: world.cut], world.labels[: world.cut],
        {"randomised": world.marks[: world.cut]},
    )  # fmt: skip
    half = slice(len(prob) // 2, len(prob))
    loss = log_loss(prob[half], world.labels[half])

    late = slice(world.cut, world.n)
    served = learner.predict(ids[late], numeric[late])[:, 0].astype(np.float64)
    bias = [
        served[chosen].sum() / world.prob[chosen].sum() - 1
        for slot in range(len(world.examination))
        if (chosen := world.random & (world.position == slot + 1)).any()
    ]
    ids, numeric = ids[late][world.asked], numeric[late][world.asked]

    def at_treatment(slot, treatment):
        shown = (ids, numeric)
        if presentation:
            named = {"slot": str(slot + 1), "treatment": world.config.treatments[treatment]}
            shown = in_treatment(learner.encoder, ids, numeric, named)
        return learner.predict(*shown)[:, 0].astype(np.float64)

    by_slot = [at_treatment(slot, 0) for slot in range(len(world.examination))]
    exam = np.array([p.mean() for p in by_slot[1:]]) / by_slot[0].mean()
    true = world.examination[1:] / world.examination[0]
    reference = np.log(by_slot[0] / (1 - by_slot[0]))
    drawn = np.zeros(len(ids))
    for slot in range(len(world.examination)):
        for treatment in range(len(world.config.treatments)):
            chosen = (world.slot == slot) & (world.treatment == treatment)
            drawn[chosen] = at_treatment(slot, treatment)[chosen]
    p = world.rate(world.slot, world.treatment)
    kl = (p * np.log(p / drawn) + (1 - p) * np.log((1 - p) / (1 - drawn))).mean()
    zero = np.zeros(len(ids), int)
    return {
        "loss": loss, "exam": exam, "err": np.abs(exam / true - 1).mean(),
        "corr": np.corrcoef(reference, world.logit)[0, 1],
        "level": by_slot[0].mean() / world.rate(zero, zero).mean() - 1, "kl": 1000 * kl,
        "bias": np.sqrt(np.mean(np.square(bias))), "us": cpu,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--impressions", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--randomised", type=float, default=0.02)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--only", action="append", default=[], metavar="ARM")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=NUMBER")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    settings = {key: float(value) for key, _, value in (x.partition("=") for x in args.set)}
    for seed in args.seeds:
        world = World(args.impressions, seed, args.randomised)
        for name, (modules, calibrator) in arms(settings).items():
            if args.only and name not in args.only:
                continue
            shown = name != "no presentation"
            found = measure(world, modules, calibrator, shown, seed, args.batch_size)
            exam = " ".join(f"{x:.3f}" for x in found.pop("exam"))
            rest = "  ".join(f"{key} {value:.5f}" for key, value in found.items())
            print(f"{name:36s} seed {seed}  exam {exam}  {rest}", flush=True)


if __name__ == "__main__":
    main()
