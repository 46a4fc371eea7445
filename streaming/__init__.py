"""Raw logs to ordered shards, on Apache Beam. The only package that imports Beam."""

DIST = "online-ctr"
