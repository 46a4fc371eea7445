"""One worker or parameter server: ``python -m ctr.distributed.task``, told by ``TF_CONFIG``."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctr.errors import ConfigError, CtrError

WORKER, SERVER, CHIEF = "worker", "ps", "chief"


@dataclass(frozen=True)
class ClusterSpec:
    """Who is in a cluster and who we are in it; the content of ``TF_CONFIG``.

    Attributes:
        addresses: ``host:port`` of every task, by role (``worker``, ``ps``, perhaps ``chief``).
        role: Our own role.
        index: Our place in it.
    """

    addresses: Mapping[str, Sequence[str]]
    role: str
    index: int


def spec_from_environment() -> ClusterSpec:
    """Reads ``TF_CONFIG``.

    Raises:
        ConfigError: it is missing, no JSON, or lacks workers, servers or our own task.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        addresses = {role: tuple(config["cluster"][role]) for role in config["cluster"]}
        spec = ClusterSpec(addresses, config["task"]["type"], int(config["task"]["index"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG does not describe a cluster ({error!r}), received {text[:200]!r}. Set it "
            'to {"cluster": {"worker": ["host:port", ...], "ps": [...], "chief": [...]}, '
            '"task": {"type": "worker", "index": 0}}.'
        ) from None
    for role in (WORKER, SERVER):
        if not addresses.get(role):
            raise ConfigError(f"TF_CONFIG names no task of type {role!r}; name one or more.")
    return spec


def serve(spec: ClusterSpec) -> None:
    """Starts the server of a task and returns; it answers until the process ends.

    Raises:
        ConfigError: the role is not one that serves, or the address is taken.
    """
    import tensorflow as tf

    if spec.role not in (WORKER, SERVER):
        raise ConfigError(
            f"a task of type {spec.role!r} serves nothing. Start workers and servers this way, and "
            "the chief as octr train --cluster env."
        )
    try:
        tf.distribute.Server(
            tf.train.ClusterSpec({role: list(hosts) for role, hosts in spec.addresses.items()}),
            job_name=spec.role,
            task_index=spec.index,
            protocol="grpc",
        )
    except tf.errors.OpError as error:
        raise ConfigError(
            f"{spec.role} {spec.index} cannot start: {str(error).splitlines()[0]} Check its "
            "address in TF_CONFIG and whether its port is free."
        ) from None


def main() -> int:
    """Serves until the process is ended from outside."""
    try:
        serve(spec_from_environment())
    except CtrError as error:
        print(f"octr: {error}", file=sys.stderr)
        return error.exit_code
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
