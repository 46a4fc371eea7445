import json
from html.parser import HTMLParser

import numpy as np
import pytest

from ctr.errors import CtrError
from ctr.metrics import ProgressiveMetrics
from ctr.report import build_report, load_report, save_report, write_report
from ctr.report.content import json_ready, metrics_section
from ctr.report.html import render
from ctr.report.numbers import duration, size
from ctr.report.terminal import metrics_table

HOUR = 3_600_000_000
START = 1_700_000_000_000_000 // HOUR * HOUR


def metrics(seed=0, start=START, n=4_000, hours=12):
    rng = np.random.default_rng(seed)
    prob = 1 / (1 + np.exp(-rng.normal(-2, 1, n)))
    found = ProgressiveMetrics(("tab", "slot"), window_us=HOUR)
    found.update(
        start + np.sort(rng.integers(0, hours * HOUR, n)),
        prob,
        rng.random(n) < prob,
        query=rng.integers(0, n // 5, n),
        slices={
            "tab": np.array(["home", "<b>&video</b>"])[rng.integers(0, 2, n)],
            "slot": rng.integers(0, 4, n),
        },
    )
    return found


def report_of(found, recipe="wide_dcn", **options):
    return build_report(
        run={
            "id": f"{recipe}0123456789",
            "recipe": recipe,
            "label": "click",
            "seed": 7,
            "schema": "00ff00ff00ff00ff",
            "schema_name": "shop",
            "config": {"batch_size": 512, "model": {"layers": (64, 32)}},
        },
        metrics=found,
        examples=4_000,
        cpu_us_per_example=25.0,
        throughput={"examples_per_second": 50_123.4},
        peak_memory_bytes=300 << 20,
        **options,
    )


class Page(HTMLParser):
    """Collects what a page refers to and checks that its tags balance."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.open, self.count = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [v for k, v in attrs if k in ("href", "src", "action", "data")]
        if tag not in ("meta", "br", "hr", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report():
    baseline = {"name": "lr", "metrics": metrics_section(metrics(1)), "cpu_us_per_example": 3.0}
    truth = {"bayes_log_loss": 0.3217, "metrics": metrics_section(metrics(2))}
    return report_of(
        metrics(), counts={"numeric_missing.price": 31}, truth=truth, baselines=[baseline]
    )


def test_report_has_the_promised_layout(report):
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text) == report
    assert report["examples"] == 4_000
    assert report["cpu_us_per_example"] == pytest.approx(25)
    assert report["peak_memory_bytes"] == 300 << 20
    names = {"log_loss", "normalized_entropy", "auc", "per_query_auc", "calibration"}
    found = report["metrics"]
    assert names <= set(found["lifetime"])
    assert len(found["windows"]) == 12
    assert all(names <= set(window) for window in found["windows"])
    assert names <= set(found["slices"]["tab"]["home"])
    assert set(found["slices"]["slot"]) == {"0", "1", "2", "3"}
    assert sum(bucket["weight"] for bucket in report["calibration_buckets"]) == 4_000


def test_second_half_starts_after_half_of_the_examples(report):
    half = report["metrics"]["second_half"]
    windows = [w for w in report["metrics"]["windows"] if w["start_us"] >= half["start_us"]]
    assert half["examples"] == sum(w["examples"] for w in windows)
    assert 2_000 - windows[0]["examples"] < half["examples"] <= 2_000


def test_save_and_load(tmp_path, report):
    path = save_report(tmp_path, report)
    assert load_report(tmp_path) == report
    assert load_report(path) == report


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "no report"),
        ("{", "JSONDecodeError"),
        ("[]", "not a report"),
        ('{"format": 1, "run": {}}', "metrics"),
        ('{"format": 9, "run": {}, "metrics": {"lifetime": {}, "windows": []}}', "received 9"),
    ],
)
def test_a_damaged_report_is_an_error(tmp_path, content, word):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(CtrError, match=word):
        load_report(tmp_path)


def test_json_ready_drops_what_json_cannot_say():
    value = {"a": (np.float32(0.5), np.nan, np.inf), 3: np.arange(2), "p": pytest}
    assert json_ready(value)["a"] == [0.5, None, None]
    assert json_ready(value)["3"] == [0, 1]
    assert isinstance(json_ready(value)["p"], str)


def test_page_is_self_contained_and_well_formed(tmp_path, report):
    text = write_report(tmp_path, report).read_text()
    page = Page(text)
    assert "://" not in text
    assert "@import" not in text
    assert all(link.startswith("#") for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    # Five metrics and the rate, the calibration plot and the forest plot.
    assert page.count["svg"] == 8
    assert "#0f0e" not in text


def test_page_shows_the_numbers(report):
    text = render(report)
    life = report["metrics"]["lifetime"]
    for shown in (
        f"{life['log_loss']:.4f}",
        f"{life['auc']:.4f}",
        f"{life['calibration']:.3f}",
        "300 MiB",
        "25.0 µs",
        "50,123 examples/s",
        "0.3217",
        "numeric_missing.price",
        "00ff00ff00ff00ff",
        "wide_dcn on shop, label click",
        "true probabilities",
        "batch_size",
        "[64, 32]",
    ):
        assert shown in text
    delta = report["baselines"][0]["metrics"]["lifetime"]["log_loss"] - life["log_loss"]
    assert f"({delta:+.5f})" in text


def test_names_from_the_data_are_escaped(report):
    text = render(report)
    assert "<b>&video</b>" not in text
    assert "&lt;b&gt;&amp;video&lt;/b&gt;" in text


def test_runs_of_one_recipe_get_told_apart(report):
    other = report_of(metrics(5))
    other["run"]["id"] = "abcdefgh99"
    text = render(report, [other])
    assert "2 runs on shop" in text
    assert "wide_dcn abcdefgh" in text
    table = metrics_table([report, other])
    assert [line.split("  ")[0] for line in table.splitlines()[1::2]] == [
        "wide_dcn wide_dcn",
        "lr",
        "wide_dcn abcdefgh",
    ]
    assert f"{other['metrics']['lifetime']['log_loss']:.5f}" in table


def test_a_run_without_examples_still_gives_a_page():
    empty = report_of(ProgressiveMetrics(("tab",), window_us=HOUR))
    page = Page(render(json.loads(json.dumps(empty))))
    assert "svg" not in page.count
    assert empty["metrics"]["second_half"] is None


def test_one_class_and_one_window_give_a_page():
    found = ProgressiveMetrics((), window_us=HOUR)
    found.update([START, START + 1], [0.1, 0.2], [0, 0])
    text = render(report_of(found))
    assert Page(text).count["svg"] >= 1
    assert "nan" not in text.lower().split("<script>")[0].split("</style>")[1]


def test_a_clock_that_counts_rows_is_not_shown_as_dates():
    assert "event clock" in render(report_of(metrics(start=0)))
    assert "event clock" not in render(report_of(metrics()))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "\N{EN DASH}"), (4.24, "4.2 s"), (61, "1 min 01 s"), (7_530, "2 h 05 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("n", "text"), [(10, "10 B"), (2**20, "1 MiB"), (3 * 2**30, "3.00 GiB")])
def test_size(n, text):
    assert size(n) == text
