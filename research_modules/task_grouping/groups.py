"""One network per group of labels, and each label predicted by the group that serves it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import tensorflow as tf

from ctr.api import Batch, Features, Forward, Loss, Model, ModelConfig, Rows
from ctr.encoding import Layout
from ctr.errors import ConfigError, ModuleError
from ctr.losses import LogLoss
from ctr.module import ModuleInfo
from ctr.recipe import Recipe

#: Distance between the seeds of two networks; a run's own seeds are much smaller.
_STRIDE = 20_011


@dataclass(frozen=True)
class Grouped:
    """``len(groups)`` networks of one kind, each with the labels of one group.

    Every network has its own embedding and wide columns in the fused table and its own dense
    variables, so what is learned in one never reaches another.

    Attributes:
        base: The network; its size is that of each copy.
        groups: Numbers of the labels in each network, in the order in which labels are learned.
        served: For each label, the place of the group that predicts it; empty takes the first
            group that holds it.
    """

    base: ModelConfig
    groups: tuple[tuple[int, ...], ...]
    served: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_groups(self.groups, self.served)

    @property
    def dim(self) -> int:
        """Embedding columns of all networks."""
        return len(self.groups) * self.base.dim

    def build(self, layout: Layout, n_tasks: int, seed: int) -> GroupedModel:
        """Creates the networks.

        Raises:
            ModuleError: the groups are not made for this number of labels.
        """
        return GroupedModel(self, layout, n_tasks, seed)


class GroupedModel(tf.Module):
    """The built form of :class:`Grouped`."""

    def __init__(self, config: Grouped, layout: Layout, n_tasks: int, seed: int) -> None:
        super().__init__(name="grouped")
        count = 1 + max(task for group in config.groups for task in group)
        if count != n_tasks:
            raise ModuleError(
                f"task_grouping: groups are given for {count} labels, but {n_tasks} are learned. "
                "Number the labels from 0 in the order of `labels`."
            )
        self._groups, self._base_dim, self.dim = config.groups, config.base.dim, config.dim
        self._served = config.served or first_groups(config.groups)
        self._n_tasks = n_tasks
        self.networks: list[Model] = [
            config.base.build(layout, len(group), seed + _STRIDE * i)
            for i, group in enumerate(config.groups)
        ]
        self._wide_widths = [
            getattr(network, "n_wide", len(group))
            for network, group in zip(self.networks, config.groups, strict=True)
        ]
        self.n_wide = sum(self._wide_widths)
        self.wide = _Parts([n.wide for n in self.networks if hasattr(n, "wide")])
        self.head = _Parts([n.head for n in self.networks if hasattr(n, "head")])

    def __call__(self, features: Features, training: bool) -> Forward:
        """Returns logits float32[B, T] of the serving networks.

        ``aux`` holds ``networks``, the logits float32[N, B, T] of all of them (0 where a label is
        not in the group), and ``served``, the logits before a later calibration.
        """
        logits, at = [], 0
        for i, network in enumerate(self.networks):
            own = self._share(features, i, at)
            logits.append(tf.unstack(network(own, training).logits, axis=1))
            at += self._wide_widths[i]
        places = [
            dict(zip(group, row, strict=True))
            for group, row in zip(self._groups, logits, strict=True)
        ]
        nothing = tf.zeros_like(logits[0][0])
        every = tf.stack([
            tf.stack([place.get(task, nothing) for task in range(self._n_tasks)], axis=1)
            for place in places
        ])  # fmt: skip
        served = tf.stack([places[n][task] for task, n in enumerate(self._served)], axis=1)
        return Forward(served, {"networks": every, "served": served})

    def _share(self, features: Features, network: int, wide: int) -> Features:
        dims = slice(network * self._base_dim, (network + 1) * self._base_dim)
        wides = slice(wide, wide + self._wide_widths[network])
        rows = Rows(features.rows.embedding[..., dims], features.rows.wide[..., wides])
        return features._replace(
            vectors=features.vectors[..., dims], linear=features.linear[..., wides], rows=rows
        )


class _Parts(tf.Module):
    """Parts of all networks under one name, for those who treat such parts apart."""

    def __init__(self, parts: list[tf.Module]) -> None:
        super().__init__()
        self.parts = parts


@dataclass(frozen=True)
class GroupsLoss:
    """The sum of the networks' own losses, each over the labels of its group.

    Attributes:
        groups: As in :class:`Grouped`.
        base: The loss of one network.
    """

    groups: tuple[tuple[int, ...], ...]
    base: Loss = field(default_factory=LogLoss)

    def __call__(self, forward: Forward, batch: Batch) -> tf.Tensor:
        """Returns float32[B].

        Raises:
            ModuleError: the model does not have these networks.
        """
        if "networks" not in forward.aux:
            raise ModuleError(
                "task_grouping: another module has wrapped the model since. Put task_grouping "
                "after the modules that change the model."
            )
        shift = tf.stop_gradient(forward.logits - forward.aux["served"])
        losses = []
        for place, group in enumerate(self.groups):
            member = tf.constant([task in group for task in range(batch.labels.shape[1])])
            own = batch._replace(labels=tf.where(member, batch.labels, -1.0))
            logits = forward.aux["networks"][place] + shift
            losses.append(self.base(forward._replace(logits=logits), own))
        return tf.add_n(losses)


def first_groups(groups: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Returns for each task the place of the first group that holds it."""
    n_tasks = 1 + max(task for group in groups for task in group)
    return tuple(
        next(place for place, group in enumerate(groups) if task in group)
        for task in range(n_tasks)
    )


def check_groups(groups: tuple[tuple[int, ...], ...], served: tuple[int, ...]) -> None:
    """Refuses groups that do not serve every label.

    Raises:
        ConfigError: a group is empty or repeats a label, a label is missing or served by a group
            it is not in.
    """
    if not groups or any(not g or len(set(g)) < len(g) or min(g) < 0 for g in groups):
        raise ConfigError(
            "task_grouping: groups must be lists of distinct label numbers such as [[0, 1], [2]], "
            f"received {[list(g) for g in groups]}."
        )
    held = {task for group in groups for task in group}
    missing = sorted(set(range(max(held) + 1)) - held)
    if missing:
        raise ConfigError(f"task_grouping: label {missing[0]} is in no group; add it to one.")
    if served and (
        len(served) != len(held)
        or any(not 0 <= n < len(groups) or t not in groups[n] for t, n in enumerate(served))
    ):
        raise ConfigError(
            "task_grouping: served has to name, for each label, a group that holds it; received "
            f"{list(served)} for the groups {[list(g) for g in groups]}."
        )


@dataclass(frozen=True)
class TaskGrouping:
    """Trains one network per group of labels in place of one network for all labels.

    Paper: Fifty et al. 2021, "Efficiently identifying task groupings for multi-task learning"
        (arXiv:2109.04617), sections 3 and 5. ``task_affinity`` measures what the groups should be.
    Deviations: the networks share one lookup of the fused table, each with columns of its own.
    Reduces to: the recipe itself, bit for bit, with one group of all labels.

    Attributes:
        groups: Numbers of the labels in each network, counted from 0 in the order of ``labels``;
            a label may be in several groups.
        served: For each label, the place of the group that predicts it; empty takes the first.
    """

    groups: tuple[tuple[int, ...], ...] = ((0,),)
    served: tuple[int, ...] = ()

    info: ClassVar[ModuleInfo] = ModuleInfo(
        name="task_grouping",
        paper="Efficiently identifying task groupings (arXiv:2109.04617)",
        extends=frozenset({"model", "loss"}),
    )

    def __post_init__(self) -> None:
        # Experiment files give lists.
        object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        object.__setattr__(self, "served", tuple(self.served))
        check_groups(self.groups, self.served)

    def apply(self, recipe: Recipe) -> Recipe:
        """Returns the recipe with one network per group."""
        model = Grouped(recipe.model, self.groups, self.served)
        return replace(recipe, model=model, loss=GroupsLoss(self.groups, recipe.loss))
