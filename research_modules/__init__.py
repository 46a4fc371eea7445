"""Techniques from papers, one file each, as plug-ins of the learner's recipe."""

import ctr  # noqa: F401  # first of all: it chooses Keras 2, which TensorFlow's import settles

DIST = "online-ctr"
