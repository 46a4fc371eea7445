"""Task affinity groupings: which labels gain from one network, measured in one training run."""

import ctr  # noqa: F401  # chooses Keras 2 before anything here imports TensorFlow
