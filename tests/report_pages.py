"""A report's page for the tests: its entries, and what a browser would read of it."""

import re
from html.parser import HTMLParser
from pathlib import Path

from totalrecall.reports.gallery import ReportEntry
from totalrecall.reports.report import write_report

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\u202egnp.exe\n\udcff"


def entry(number: int, score: float, **changes) -> ReportEntry:
    settings = {"threshold": 2.0, "is_anomalous": score > 2.0} | changes
    return ReportEntry(f"test/crack/{number:03}.png", score, **settings)


def page(folder: Path, entries, **changes) -> str:
    settings = {"title": "Report", "model_info": {"backbone": "compact"}} | changes
    return write_report(folder / "report.html", entries=entries, **settings).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Return the section of a page under a heading; an empty text where the page has none."""
    return next((part for part in re.split("(?=<section)", text) if f"<h2>{heading}</h2>" in part), "")


class Reader(HTMLParser):
    """Notes tags and attributes, and that every tag that opens is closed in order."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())
