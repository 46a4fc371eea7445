"""From the arms of an experiment to recipes, checked before anything is run."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctr import __version__, registry
from ctr.config import assignment, content_hash, override, to_plain
from ctr.data.manifest import file_sha256
from ctr.data.side import check_side
from ctr.errors import ConfigError, CtrError, ModuleError, nearest
from ctr.harness.experiment import PRIMARY, Arm, Experiment, ModuleUse
from ctr.harness.replay import Timing
from ctr.harness.replicas import Replica, check_replicas
from ctr.harness.stream import Stream
from ctr.module import ResearchModule, compose
from ctr.recipe import Recipe, named_recipe, side_columns
from ctr.schema import Schema

#: Tuned values by path, as one trial sets them.
Choice = Mapping[str, Any]
MODULES = "modules."


@dataclass(frozen=True)
class Built:
    """An arm ready to run.

    Attributes:
        recipe: The composed recipe.
        timing: Its delays and publishing.
        modules: The modules that made it.
    """

    recipe: Recipe
    timing: Timing
    modules: tuple[ResearchModule, ...]

    def identity(self) -> dict[str, Any]:
        """Returns plain data that change whenever the arm's numbers may change."""
        return {
            "recipe": to_plain(self.recipe),
            "timing": to_plain(self.timing),
            "version": __version__,
            "sources": _sources([self.recipe, *self.modules]),
        }


def build_arm(
    experiment: Experiment, arm: Arm, schema: Schema, choice: Choice | None = None
) -> Built:
    """Builds an arm's recipe: base, overrides, the base's modules, the arm's modules.

    Args:
        experiment: The experiment.
        arm: One of its arms.
        schema: Schema of the stream.
        choice: Tuned values by path.

    Raises:
        CtrError: something does not exist, does not fit together or is not in the stream.
    """
    tuned = dict(choice or {})
    paths = [k for k in tuned if not k.startswith(MODULES)]
    recipe = override(named_recipe(experiment.base.recipe), experiment.base.set)
    recipe = override(recipe, arm.set)
    recipe = override(recipe, [f"{path}={json.dumps(tuned[path])}" for path in paths])
    uses = _tuned_modules([*experiment.base.modules, *arm.modules], tuned, arm.name)
    modules = tuple(build_module(use) for use in uses)
    for module in modules:
        check_side(module.info.columns, schema)
    composed = compose(recipe, modules)
    check_side(side_columns(composed), schema)
    timing = _timing(experiment, arm, schema)
    check_replicas(experiment, arm, timing.immediate and not composed.sampler.drops)
    return Built(composed, timing, modules)


def build_module(use: ModuleUse) -> ResearchModule:
    """Builds a module from its name and hyper-parameters.

    Raises:
        ModuleError: there is no such module, or it has no such hyper-parameter.
    """
    cls = registry.load(use.use)
    known = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in use.parameters.items():
        if key not in known:
            raise ModuleError(f"module {use.use!r} has no field {key!r}: {nearest(key, known)}")
        values[key] = tuple(value) if isinstance(value, list) else value
    try:
        module: ResearchModule = cls(**values)
    except TypeError as error:
        raise ModuleError(f"module {use.use!r} cannot be built: {error}.") from None
    return module


def module_from_settings(name: str, settings: Sequence[str]) -> ResearchModule:
    """Builds a module from ``field=value`` assignments, values as in TOML.

    Raises:
        CtrError: there is no such module, or it has no such hyper-parameter.
    """
    values = {}
    for text in settings:
        path, value = assignment(text)
        values[".".join(path)] = value
    return build_module(ModuleUse(name, values))


def check_arms(experiment: Experiment, stream: Stream) -> dict[str, str]:
    """Builds every arm, so that a mistake is found before hours of computing.

    Returns:
        Why each optional arm that cannot be built is left out.

    Raises:
        CtrError: an arm cannot be built, or the primary metric is not defined on this stream.
    """
    schema = stream.schema
    known = [label.name for label in schema.labels]
    for label in experiment.labels:
        if label not in known:
            raise ConfigError(
                f"schema {schema.name!r} has no label {label!r}: {nearest(label, known)}"
            )
    if experiment.primary == "per_query_auc" and not schema.has("query_id"):
        raise ConfigError(f"primary per_query_auc: schema {schema.name!r} has no query_id.")
    if experiment.primary == "slice_calibration_error" and not schema.slices:
        raise ConfigError(f"primary {experiment.primary}: schema {schema.name!r} has no slices.")
    assert experiment.primary in PRIMARY
    left_out = {}
    for arm in experiment.all_arms:
        try:
            build_arm(experiment, arm, schema)
        except CtrError as error:
            if not arm.optional:
                raise
            left_out[arm.name] = str(error)
    return left_out


def _tuned_modules(
    uses: Sequence[ModuleUse], tuned: Mapping[str, Any], arm: str
) -> list[ModuleUse]:
    found = list(uses)
    for path, value in tuned.items():
        if not path.startswith(MODULES):
            continue
        name, _, key = path.removeprefix(MODULES).rpartition(".")
        names = [use.use for use in found]
        if name not in names:
            raise ConfigError(
                f"arm {arm!r} tunes {path!r}, but has no module {name!r}: {nearest(name, names)}"
            )
        at = names.index(name)
        found[at] = ModuleUse(name, {**found[at].parameters, key: value})
    return found


def _timing(experiment: Experiment, arm: Arm, schema: Schema) -> Timing:
    labels = experiment.labels or (schema.labels[0].name,)
    given = experiment.delay_s if arm.delay_s is None else arm.delay_s
    if given == "schema":
        delays = {x.name: x.delay_s for x in schema.labels if x.name in labels}
    elif isinstance(given, Mapping):
        for name in given:
            if name not in labels:
                raise ConfigError(
                    f"delay_s names {name!r}, which is not learned: {nearest(name, labels)}"
                )
        delays = {name: given[name] for name in given}
    else:
        delays = dict.fromkeys(labels, given)
    for name, value in delays.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise ConfigError(
                f"delay_s of {name!r}: expected seconds of at least 0, a table of them by label, "
                f'or "schema"; received {value!r}.'
            )
    delay_us = {name: round(value * 1e6) for name, value in delays.items()}
    return Timing(delay_us, experiment.publish_us(arm), experiment.arrivals == "label_time")


def _sources(roots: Sequence[Any]) -> dict[str, str]:
    """Returns hashes of the files that define the parts, so that an edit makes results stale."""
    files = {}
    for part in roots:
        for cls in {type(item) for item in _dataclasses(part)}:
            file = inspect.getsourcefile(cls)
            if file is not None:
                files[f"{cls.__module__}"] = file_sha256(Path(file))
    return dict(sorted(files.items()))


def _dataclasses(value: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            yield from _dataclasses(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _dataclasses(item)


def unit_identity(
    experiment: Experiment,
    stream: Stream,
    built: Built,
    own: Replica,
    burn_in: int,
) -> str:
    """Returns the content hash of one replica of an arm."""
    return content_hash(
        {
            "arm": built.identity(),
            "stream": stream.identity(),
            "replica": to_plain(own),
            "labels": list(experiment.labels),
            "burn_in": burn_in,
            "window_s": experiment.window_s,
        }
    )


def cost_identity(stream: Stream, base: Built, arm: Built, seed: int, rounds: int) -> str:
    """Returns the content hash of one comparison of costs."""
    pair = [base.identity(), arm.identity()]
    return content_hash({"costs": pair, "stream": stream.identity(), "seed": seed, "n": rounds})
