"""The ``schema.toml`` that tells ``octr ingest`` how to read simulated logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ctr.schema import schema_to_dict
from ctr.simulator.config import WorldConfig
from ctr.simulator.examples import simulated_schema
from ctr.simulator.randomised import RANDOMISED

IMPRESSIONS = "impressions"


def event_stem(label: str) -> str:
    """Returns the start of the file names of a label's event log."""
    return f"events-{label}"


def schema_toml(config: WorldConfig) -> str:
    """Returns the text of the schema file, the ``[source]`` table included."""
    table = schema_to_dict(simulated_schema(config))
    features, labels = table.pop("features"), table.pop("labels")
    columns = table.pop("columns")
    top = {key: value for key, value in table.items() if value}
    events = [
        {
            "label": label.name,
            "input": f"{event_stem(label.name)}-*.csv",
            "id_column": "impression_id",
            "time_column": "time_ms",
            "window_s": label.window_s,
        }
        for label in config.labels
    ]
    parts = [
        "# Simulated ad logs: one log of impressions, one of events for each label.",
        _pairs(top),
        _section("[columns]", columns),
        _section("[source]", {"format": "csv", "event_time": "ms"}),
        *([_section("[source.types]", {RANDOMISED: "int8"})] if config.randomised else []),
        _section("[source.impressions]", {"input": f"{IMPRESSIONS}-*.csv"}),
        *(_section("[[source.events]]", event) for event in events),
        *(_section("[[features]]", feature) for feature in features),
        *(_section("[[labels]]", label) for label in labels),
    ]
    return "\n".join(parts)


def _section(head: str, table: Mapping[str, Any]) -> str:
    return f"{head}\n{_pairs(table)}"


def _pairs(table: Mapping[str, Any]) -> str:
    # JSON's strings, numbers, booleans and lists are TOML as well.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
