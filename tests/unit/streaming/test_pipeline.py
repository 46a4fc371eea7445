import subprocess
import sys
from collections import Counter

import pyarrow as pa
from apache_beam.options.pipeline_options import StandardOptions

from streaming.arrow_coder import RecordBatchCoder
from streaming.pipeline import add_counts, failures, merge_spans, pipeline_options
from streaming.spill import spill


def test_the_local_runner_is_pinned_and_any_other_left_alone():
    assert pipeline_options([]).view_as(StandardOptions).runner == "FnApiRunner"
    chosen = pipeline_options(["--runner=SomeRunner", "--streaming"]).view_as(StandardOptions)
    assert (chosen.runner, chosen.streaming) == ("SomeRunner", True)
    assert pipeline_options(["--runner", "Other"]).view_as(StandardOptions).runner == "Other"


def test_coder_round_trip_of_a_slice_takes_only_the_slice_along():
    batch = pa.RecordBatch.from_pydict({"a": list(range(10_000)), "b": ["x" * 50] * 10_000})
    coder, part = RecordBatchCoder(), batch.slice(5000, 10)
    encoded = coder.encode(part)
    assert coder.decode(encoded).equals(part)
    assert len(encoded) < 3000


def test_spilled_batches_come_back(tmp_path):
    batches = [pa.RecordBatch.from_pydict({"a": [i, i + 1]}) for i in range(3)]
    spilled = spill(tmp_path / "x.arrow", batches)
    assert [s.load().equals(b) for s, b in zip(spilled, batches, strict=True)] == [True] * 3
    assert spilled[2].map().equals(batches[2])
    assert [path.name for path in tmp_path.iterdir()] == ["x.arrow"]


def test_counts_and_spans_merge():
    assert add_counts([Counter(a=1), Counter(a=2, b=0)]) == Counter(a=3, b=0)
    assert merge_spans([(5, 9), None, (2, 3)]) == (2, 9)
    assert merge_spans([]) is None


def test_our_errors_are_found_in_a_runners_text():
    text = "Traceback ...\nctr.errors.StreamError: a.gz: cut off. [while running 'Stage']\nmore"
    assert list(failures(RuntimeError(text))) == [("StreamError", "a.gz: cut off.")]


def test_the_verb_does_not_import_beam_to_show_its_help():
    code = (
        "import argparse, sys, streaming.ingest_command as c\n"
        "c.add_arguments(argparse.ArgumentParser())\n"
        "sys.exit('apache_beam' in sys.modules or 'pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
