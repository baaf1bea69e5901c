"""The ranking of detectors as columns: which figures there are, their headings, their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from redline.reports.table import Cell, Table


class RankingColumn(NamedTuple):
    """One column of the ranking."""

    head: str
    group: str  # heading above columns that belong together, "" = none
    keys: tuple[str, ...]  # path of its value in a row of the document's ranking
    brief: str = ""  # heading in a terminal, "" = left out there
    bar: bool = False  # a share from 0 to 1, drawn as a bar


LABELLED = (
    RankingColumn("detector", "", ("detector",), "detector"),
    RankingColumn("window", "", ("window",), "window"),
    RankingColumn("threshold", "", ("threshold",), "threshold"),
    RankingColumn("precision", "events", ("best", "event_precision"), "precision"),
    RankingColumn("recall", "events", ("best", "event_recall"), "recall"),
    RankingColumn("F1", "events", ("best", "event_f1"), "F1", bar=True),
    RankingColumn("delay", "events", ("best", "delay"), "delay"),
    RankingColumn("false/day", "events", ("best", "false_alarms_per_day"), "false/day"),
    RankingColumn("precision", "rows", ("best", "row_precision")),
    RankingColumn("recall", "rows", ("best", "row_recall")),
    RankingColumn("F1", "rows", ("best", "row_f1"), "row F1", bar=True),
    RankingColumn("ROC", "rows", ("roc_area",), "ROC"),
    RankingColumn("AP", "rows", ("average_precision",), "AP"),
    RankingColumn("F1", "untuned", ("start", "event_f1"), "untuned F1"),
    RankingColumn("µs/point", "", ("micros",), "µs/point"),
)
UNLABELLED = (
    RankingColumn("detector", "", ("detector",), "detector"),
    RankingColumn("window", "", ("window",), "window"),
    RankingColumn("anomalies", "", ("start", "anomalies"), "anomalies"),
    RankingColumn("alarms", "", ("start", "alarms"), "alarms"),
    RankingColumn("alarms a day", "", ("start", "alarms_per_day"), "alarms/day"),
    RankingColumn("agreement", "", ("agreement",), "agreement", bar=True),
    RankingColumn("µs/point", "", ("micros",), "µs/point"),
)


def ranking_columns(document: Mapping[str, Any]) -> tuple[RankingColumn, ...]:
    """Return the columns that the document can fill, with labels or without."""
    return LABELLED if document["labels"] else UNLABELLED


def lookup_figure(row: Mapping[str, Any], keys: Sequence[str]) -> Cell:
    """Return the value at a path of keys in a row of the ranking; None where a part is None."""
    value: Any = row  # a row, then a part of it, then the figure
    for key in keys:
        value = None if value is None else value[key]
    figure: Cell = value
    return figure


def ranking_table(document: Mapping[str, Any]) -> Table:
    """Return the ranking for a terminal.

    The suggested detector is marked "*"; one that could not run is marked "!" and has dashes.
    """
    brief = [column for column in ranking_columns(document) if column.brief]
    rows: list[tuple[Cell, ...]] = [
        ("*" if row["suggested"] else "", *(lookup_figure(row, column.keys) for column in brief))
        for row in document["ranking"]
    ]
    rows += [
        ("!", failure["detector"], failure["window"], *(None for _ in brief[2:]))
        for failure in document["faults"]
    ]
    return Table(("", *(column.brief for column in brief)), rows)


def failure_lines(document: Mapping[str, Any]) -> list[str]:
    """Return why detectors could not run, one line for each detector and reason."""
    reasons = {(failure["detector"], failure["why"]): None for failure in document["faults"]}
    return [f"{detector} did not run: {why}" for detector, why in reasons]
