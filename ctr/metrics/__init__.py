"""Progressive metrics: mergeable float64 sums over time, per slice and per query."""

from ctr.metrics.difference import prediction_difference
from ctr.metrics.progressive import ProgressiveMetrics
from ctr.metrics.query_auc import QueryAuc
from ctr.metrics.sums import MetricSums

__all__ = ["MetricSums", "ProgressiveMetrics", "QueryAuc", "prediction_difference"]
