"""Training runs: one pass over committed data, resumable to the bit."""

from ctr.training.process import set_threads
from ctr.training.run import RunConfig
from ctr.training.session import save_report, train_and_report
from ctr.training.trainer import Trainer

__all__ = ["RunConfig", "Trainer", "save_report", "set_threads", "train_and_report"]
