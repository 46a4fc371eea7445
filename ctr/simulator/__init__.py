"""A simulated ad world with known true click probabilities."""

from ctr.simulator.config import LabelSpec, WorldConfig
from ctr.simulator.examples import Simulated, simulate_examples, simulated_schema, write_data
from ctr.simulator.raw_logs import write_events

__all__ = [
    "LabelSpec",
    "Simulated",
    "WorldConfig",
    "simulate_examples",
    "simulated_schema",
    "write_data",
    "write_events",
]
