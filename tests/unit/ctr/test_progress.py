import io

import pytest

from ctr.progress import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_come_every_few_seconds_with_rate_and_time_left():
    out, clock, asked = io.StringIO(), Clock(), []

    def metrics():
        asked.append(clock.now)
        return {"log_loss": 0.12345, "auc": None, "calibration": 1.0126}

    with Progress(1_000, stream=out, clock=clock) as progress:
        for examples in range(100, 1_001, 100):
            clock.now += 1
            progress.update(examples, 1_700_000_000_000_000, metrics)
    first, second = out.getvalue().splitlines()
    assert first == (
        "500 of 1,000 (50%)  100/s  0:00:05 left  at 2023-11-14 22:13  log loss 0.1235  calib 1.013"
    )
    assert second.startswith("1,000 of 1,000 (100%)  100/s  at")
    assert asked == [105, 110]


def test_the_last_state_is_shown_even_if_no_line_was_due():
    out, clock = io.StringIO(), Clock()
    with Progress(10, stream=out, clock=clock) as progress:
        clock.now += 0.1
        progress.update(10)
    assert out.getvalue() == "10 of 10 (100%)  100/s\n"


def test_a_resumed_run_counts_only_its_own_examples_in_the_rate():
    out, clock = io.StringIO(), Clock()
    with Progress(None, start=1_000_000, every_s=1, stream=out, clock=clock) as progress:
        clock.now += 2
        progress.update(1_000_050)
    assert out.getvalue() == "1,000,050 examples  25/s\n"


def test_the_rate_forgets_the_slow_start():
    out, clock = io.StringIO(), Clock()
    with Progress(None, every_s=10, stream=out, clock=clock) as progress:
        examples = 0
        for step in range(12):
            clock.now += 10
            examples += 1 if step < 3 else 1_000
            progress.update(examples)
    assert out.getvalue().splitlines()[-1].endswith("  100/s")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out, clock = Terminal(), Clock()
    with Progress(100, stream=out, clock=clock) as progress:
        clock.now += 6
        progress.update(10)
    assert out.getvalue().startswith("10 of 100 (10%)")
    assert "\x1b[?25" not in out.getvalue()


def test_a_terminal_gets_one_live_line(capsys):
    out, clock = Terminal(), Clock()
    with Progress(100, stream=out, clock=clock) as progress:
        for examples in (10, 20):
            clock.now += 1
            progress.update(examples)
            print("data")
    assert "20 of 100 (20%)" in out.getvalue()
    assert "\x1b[" in out.getvalue()
    assert capsys.readouterr().out == "data\ndata\n"


def test_an_error_inside_gives_the_terminal_back():
    out = Terminal()
    with pytest.raises(ZeroDivisionError), Progress(100, stream=out):
        raise ZeroDivisionError
    assert out.getvalue().endswith("\x1b[?25h")
