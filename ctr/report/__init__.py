"""The report of a run: ``report.json`` for scripts, ``report.html`` for people."""

from ctr.report.content import build_report, load_report, save_report
from ctr.report.html import write_report

__all__ = ["build_report", "load_report", "save_report", "write_report"]
