"""From a trained run to predictions: export, manifest, parity."""

DIST = "online-ctr"
