"""The part of ``octr doctor`` that needs Beam."""

from __future__ import annotations

from ctr.doctor import Check


def check_beam() -> Check:
    """Runs a grouped sum on the local runner, the one ``octr ingest`` uses by default."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.testing.util import assert_that, equal_to
    except ImportError as error:
        fix = "pip install 'online-ctr[stream]'"
        return Check("beam runner", "warn", f"Beam cannot be imported ({error}): no ingest", fix)
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        sums = pipeline | beam.Create([("a", 1), ("b", 2), ("a", 3)]) | beam.CombinePerKey(sum)
        assert_that(sums, equal_to([("a", 4), ("b", 2)]))
    return Check("beam runner", "ok", f"Beam {beam.__version__}: FnApiRunner grouped and summed")
