"""An experiment as one readable TOML page; ``docs/harness.md`` explains its keys."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

from ctr.config import assignment
from ctr.errors import ConfigError, nearest
from ctr.fields import from_table

#: Name of the arm that repeats the base; on one machine its differences are exactly zero.
A_A = "base (A/A)"
BASE = "base"
#: Entry-point group of the packages that bring experiments.
EXPERIMENTS = "ctr.experiments"
METHODS = ("grid", "random", "halton", "optuna")
#: What may tell the replicas of an arm apart.
SOURCES = ("seed", "order", "threads")
#: What a replica may take over from a common model.
WARM_PARTS = ("table", "all")
#: Metrics an experiment may be decided by, and whether more is better.
PRIMARY = {
    "log_loss": False,
    "normalized_entropy": False,
    "auc": True,
    "per_query_auc": True,
    "calibration_error": False,
    "slice_calibration_error": False,
}


@dataclass(frozen=True)
class Simulate:
    """A simulated stream: ``impressions`` of the world that ``set`` describes."""

    impressions: int
    seed: int = 0
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Teacher:
    """A model whose predictions, made before it learned each example, become a side column.

    Attributes:
        recipe: Shipped recipe.
        set: Overrides of it.
        seed: Decides its initial values.
        column: Name of the column.
    """

    recipe: str = "wide_dcn"
    set: tuple[str, ...] = ()
    seed: int = 0
    column: str = "teacher"


@dataclass(frozen=True)
class StreamSpec:
    """Which examples every arm sees.

    Attributes:
        data: Folder written by ``octr ingest``, relative to the working directory.
        simulate: A simulated stream instead.
        first: Examples of the data that are left out at the start.
        rows: Examples used; 0 uses all that are left.
        burn_in: Examples that are learned but not scored.
        teacher: A model that goes over the whole data once, before any arm does.
    """

    data: str = ""
    simulate: Simulate | None = None
    first: int = 0
    rows: int = 0
    burn_in: int = 0
    teacher: Teacher | None = None


@dataclass(frozen=True)
class ModuleUse:
    """A research module by name (or ``package.module:Class``) with its hyper-parameters."""

    use: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Any, where: str) -> ModuleUse:
        """Reads ``{use = "name", beta = 1.0}``."""
        if not isinstance(table, Mapping) or not isinstance(table.get("use"), str):
            raise ConfigError(
                f'{where}: expected {{use = "module name", ...}}, received {table!r}.'
            )
        return cls(table["use"], {k: v for k, v in table.items() if k != "use"})


@dataclass(frozen=True)
class Base:
    """What every arm starts from: a shipped recipe, overrides and modules."""

    recipe: str = "wide_dcn"
    set: tuple[str, ...] = ()
    modules: tuple[ModuleUse, ...] = ()


@dataclass(frozen=True)
class WarmStart:
    """Replicas that go on from one common model, trained with the first seed.

    Attributes:
        rows: Examples of the stream's start that the common model learns.
        parts: ``table`` (what belongs to ids; towers start anew by the replica's seed) or ``all``.
    """

    rows: int
    parts: str = "table"


@dataclass(frozen=True)
class Arm:
    """One variant of the base.

    Attributes:
        name: As in the table.
        modules: Modules on top of the base's.
        set: Overrides of the base recipe, applied before any module.
        publish_interval_s: Overrides that of the experiment.
        delay_s: Overrides that of the experiment.
        tune: Further tuned parameters of this arm.
        vary: Overrides that of the experiment.
        warm_start: A common model that the replicas begin with.
        optional: True leaves the arm out, with the reason, where the stream lacks what it needs.
    """

    name: str
    modules: tuple[ModuleUse, ...] = ()
    set: tuple[str, ...] = ()
    publish_interval_s: float | None = None
    delay_s: Any = None
    tune: Mapping[str, Any] = field(default_factory=dict)
    vary: str = ""
    warm_start: WarmStart | None = None
    optional: bool = False


@dataclass(frozen=True)
class Tune:
    """Equal tuning of every arm on the first examples, which are then never scored.

    Attributes:
        rows: Examples tuned on, from the stream's start.
        trials: Trials of each arm; a grid is cut to this many points.
        method: ``grid``, ``random``, ``halton`` or ``optuna``.
        parameters: Tuned in every arm: path -> list of values or {low, high, log}.
        seed: Decides random choices.
    """

    rows: int
    trials: int = 8
    method: str = "random"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Experiment:
    """Arms x seeds over one stream.

    Attributes:
        name: Short name.
        description: What is asked.
        stream: Which examples.
        base: What the arms are compared to.
        arms: The variants.
        labels: Labels learned; the first one decides. Empty means the schema's first.
        seeds: Number the replicas of an arm; arms are paired by them.
        vary: What tells replicas apart: ``seed`` (it decides every initial value), ``order`` (it
            decides the order of batches within a launch) or ``threads`` (1, 2, ... of them); with
            the latter two, the first seed decides the initial values of all.
        delay_s: Seconds until a label arrives: a number, a table by label, or "schema".
        arrivals: ``matured`` learns every label ``delay_s`` after its example; ``label_time``
            learns a positive when its event came.
        publish_interval_s: Seconds between the model versions that predict; 0 publishes always.
        window_s: Length of a time bucket of the bootstrap; 0 makes about 60 of them.
        slices: Slices instead of the schema's, also in the calibrator.
        primary: Metric that decides.
        tune: Tuning before the comparison.
        cost_rounds: Rounds in which each arm is timed against the base in one process, in turns;
            0 compares the CPU times of the runs.
    """

    name: str
    stream: StreamSpec
    arms: tuple[Arm, ...] = ()
    base: Base = field(default_factory=Base)
    description: str = ""
    labels: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1, 2, 3)
    delay_s: Any = 0.0
    arrivals: str = "matured"
    publish_interval_s: float = 0.0
    window_s: float = 0.0
    slices: tuple[str, ...] | None = None
    primary: str = "log_loss"
    tune: Tune | None = None
    vary: str = "seed"
    cost_rounds: int = 0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """The base, its repetition and the variants, in the order of the table."""
        return (Arm(BASE), Arm(A_A), *self.arms)

    def arm(self, name: str) -> Arm:
        """Returns an arm by name."""
        return next(arm for arm in self.all_arms if arm.name == name)

    def publish_us(self, arm: Arm) -> int:
        """Microseconds between two model versions of an arm; 0 publishes always."""
        own = arm.publish_interval_s
        return round((self.publish_interval_s if own is None else own) * 1e6)

    @property
    def burn_in(self) -> int:
        """Examples of the stream's start that are not scored."""
        return max(self.stream.burn_in, self.tune.rows if self.tune else 0)


def load_table(name: str, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Reads an experiment's TOML file, or a shipped one by its bare name, and applies overrides.

    Raises:
        ConfigError: there is no such file, it is no TOML, or an override names no place in it.
    """
    path = Path(name)
    shipped = shipped_experiments()
    if not path.is_file() and name in shipped:
        text = shipped[name]
    elif path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise ConfigError(
            f"no experiment file {name}, and no shipped one of that name: {nearest(name, shipped)}."
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}.") from None
    for text in overrides:
        table = _override(table, text)
    return table


def only_arms(table: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns the page with these arms only; the base stays.

    Raises:
        ConfigError: there is no arm of a given name.
    """
    known = {arm.get("name"): arm for arm in table.get("arms", [])}
    for name in names:
        if name not in known:
            raise ConfigError(f"--only {name!r}: no such arm: {nearest(name, known)}")
    return {**table, "arms": [known[name] for name in known if name in names]}


def shipped_experiments() -> dict[str, str]:
    """Returns the TOML text of the experiments that installed packages bring, by name.

    A package's entry points in the group ``ctr.experiments`` name its folders of TOML pages.
    """
    folders = [files(point.value) for point in entry_points(group=EXPERIMENTS)]
    found = [item for folder in folders for item in folder.iterdir() if item.name.endswith(".toml")]
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8") for f in found}


def parse(table: Mapping[str, Any], where: str = "experiment") -> Experiment:
    """Builds and checks an experiment from its table.

    Raises:
        ConfigError: an unknown or missing key, or a value that cannot be used.
    """
    return from_table(Experiment, table, where)


def _override(table: dict[str, Any], text: str) -> dict[str, Any]:
    (*parents, last), value = assignment(text)
    changed = copy.deepcopy(table)
    place: Any = changed
    for key in parents:
        if isinstance(place, list):
            place = _entry(place, key, text)
        else:
            place = place.setdefault(key, {})
    if not isinstance(place, dict):
        raise ConfigError(f"--set {text!r}: {'.'.join(parents)} is no table.")
    if value == "":  # nothing stands behind the "=": the key goes
        place.pop(last, None)
    else:
        place[last] = value
    return changed


def _entry(entries: list[Any], key: str, text: str) -> Any:
    if key.isdigit() and int(key) < len(entries):
        return entries[int(key)]
    named = {entry.get("name", entry.get("use")): entry for entry in entries}
    if key not in named:
        raise ConfigError(f"--set {text!r}: no entry {key!r}: {nearest(key, named)}")
    return named[key]


def _check(experiment: Experiment) -> None:
    where = f"experiment {experiment.name!r}"
    stream, names = experiment.stream, [arm.name for arm in experiment.all_arms]
    if bool(stream.data) == bool(stream.simulate):
        raise ConfigError(f"{where}: [stream] needs `data` or `simulate`, one of the two.")
    if min(stream.first, stream.rows, stream.burn_in) < 0:
        raise ConfigError(f"{where}: first, rows and burn_in of [stream] must be at least 0.")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: arms need distinct names other than {BASE!r} and {A_A!r}.")
    if not experiment.seeds or len(set(experiment.seeds)) < len(experiment.seeds):
        raise ConfigError(f"{where}: seeds must be distinct numbers, received {experiment.seeds}.")
    if experiment.primary not in PRIMARY:
        raise ConfigError(
            f"{where}: primary {experiment.primary!r}: {nearest(experiment.primary, PRIMARY)}"
        )
    if experiment.arrivals not in ("matured", "label_time"):
        raise ConfigError(
            f"{where}: arrivals must be matured or label_time, received {experiment.arrivals!r}."
        )
    if any(experiment.publish_us(arm) < 0 for arm in experiment.all_arms):
        raise ConfigError(f"{where}: publish_interval_s must be at least 0.")
    if experiment.window_s < 0:
        raise ConfigError(f"{where}: window_s must be at least 0.")
    _check_replicas(experiment, where)
    tune = experiment.tune
    if tune is None:
        tuned = [arm.name for arm in experiment.arms if arm.tune]
        if tuned:
            raise ConfigError(f"{where}: arm {tuned[0]!r} tunes parameters; add a [tune] table.")
    elif tune.method not in METHODS or tune.trials < 1 or tune.rows < 1:
        raise ConfigError(
            f"{where}: [tune] needs rows and trials of at least 1 and a method out of "
            f"{', '.join(METHODS)}; received {tune.rows}, {tune.trials} and {tune.method!r}."
        )


def _check_replicas(experiment: Experiment, where: str) -> None:
    for arm in experiment.all_arms:
        source = arm.vary or experiment.vary
        if source not in SOURCES:
            raise ConfigError(f"{where}: vary {source!r}: {nearest(source, SOURCES)}")
        if arm.warm_start is not None and arm.warm_start.parts not in WARM_PARTS:
            raise ConfigError(
                f"{where}: warm_start.parts {arm.warm_start.parts!r}: "
                f"{nearest(arm.warm_start.parts, WARM_PARTS)}"
            )
    if 0 < experiment.cost_rounds < 6 or experiment.cost_rounds < 0:
        raise ConfigError(
            f"{where}: cost_rounds must be 0, or at least 6 so that their median has an interval; "
            f"received {experiment.cost_rounds}."
        )
