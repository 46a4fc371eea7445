"""Online click-through-rate learning: schema, learner, metrics, harness.

Importing this package selects Keras 2 (``tf_keras``) for TensorFlow, because TensorFlow
Recommenders is built on it. The choice only works before TensorFlow's Keras is first touched.
"""

import os
import sys
from typing import Any

DIST = "online-ctr"
__version__ = "0.1.0"

if "keras" in sys.modules and getattr(sys.modules["keras"], "__version__", "2").startswith("3"):
    raise ImportError(
        "Keras 3 was imported before ctr, so TensorFlow can no longer be switched to Keras 2. "
        "Import ctr first, or set TF_USE_LEGACY_KERAS=1 in the environment of the process."
    )
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def __getattr__(name: str) -> Any:
    # Needs TensorFlow, which `import ctr` must not load.
    if name in ("as_tfrs_model", "as_dataset"):
        from ctr import tfrs_model

        return getattr(tfrs_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
