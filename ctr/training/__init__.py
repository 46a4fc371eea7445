"""Training runs: one pass over committed data, resumable to the bit."""

from ctr.training.run import RunConfig
from ctr.training.session import train_and_report
from ctr.training.trainer import Status, Trainer

__all__ = ["RunConfig", "Status", "Trainer", "train_and_report"]
