"""N-Grammer: pairs of learned token codes as features of token sequences."""

import ctr  # noqa: F401  # chooses Keras 2 before anything here imports TensorFlow
