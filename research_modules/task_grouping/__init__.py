"""Task affinity groupings: which labels gain from one network, measured in one training run."""
