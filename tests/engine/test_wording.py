"""The wording of anomalies: severity as a number, and lengths of time."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redline.api.documents import anomaly_document, incident_document, stored_anomaly
from redline.engine.results import Anomaly
from redline.engine.wording import SEVERITIES, format_span, severity, severity_index
from redline.incidents.incident import OPEN, Incident, Peak

LOWEST = {"info": 50, "warning": 75, "critical": 90}
scores = st.floats(0.0, 1e9)


@given(scores, scores, st.floats(0.5, 100.0))
def test_a_larger_score_never_has_a_smaller_index(one, other, threshold):
    low, high = sorted((one, other))
    assert 0 <= severity_index(low, threshold) <= severity_index(high, threshold) <= 100


@given(st.floats(1.0, 1e6))
def test_the_index_agrees_with_the_word(ratio):
    index = severity_index(ratio, 1.0)
    assert index >= LOWEST[severity(ratio, 1.0)] and type(index) is int
    rank = SEVERITIES.index(severity(ratio, 1.0))
    above = [LOWEST[word] for word in SEVERITIES[rank + 1 :]]
    assert not above or index <= above[0]


def test_the_index_of_no_opinion_and_of_a_number_beyond_all():
    assert severity_index(math.nan, 3.5) == 0 and severity_index(math.inf, 3.5) == 100
    assert severity_index(np.float64(7.0), 3.5) == 90


def test_documents_of_anomalies_and_alerts_say_it():
    anomaly = Anomaly(1, 7, 0.0, 0, 9.0, math.nan, math.nan, 5.25, 3.5, 1, True, 3)
    made = anomaly_document(("load",), ("%",), "oven", anomaly)
    assert made["severity_index"] == anomaly.severity_index == 75
    row = {"stream": "oven", "low": None, **anomaly._asdict()} | {"severity": "warning"}
    row |= {"feature": "load", "reason": "", "high": None, "low": None}
    assert stored_anomaly({}.get, row)["severity_index"] == 75
    peak = Peak(7, 0.0, 0, 9.0, math.nan, math.nan, 7.0, 3.5)
    incident = Incident("a", "oven", (0,), 7, 7, 0.0, 0.0, 1, 1, peak, "critical", OPEN)
    assert incident_document({}.get, incident)["severity_index"] == 90


@given(st.floats(0.0, 1e8))
def test_a_length_of_time_has_at_most_two_units(seconds):
    words = format_span(seconds).split()
    assert len(words) in (2, 4) and set(words[1::2]) <= {"s", "min", "h", "d"}
