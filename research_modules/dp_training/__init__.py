"""Differentially private training of an online learner, with the guarantee it really has."""

import ctr  # noqa: F401  # chooses Keras 2 before anything here imports TensorFlow
