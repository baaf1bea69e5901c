"""Fixtures of the tests of incidents."""

import pytest

from tests.incidents.receiver import Receiver


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    made = Receiver()
    yield made
    made.close()
