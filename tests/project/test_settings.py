"""The one table of settings: what is written is read back, what is wrong is named."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.settings import (
    SERVER_SETTINGS,
    SETTINGS_BY_NAME,
    STREAM_SETTINGS,
    ServerSettings,
    Settings,
    SettingsError,
    export_settings,
    import_settings,
    initial_settings,
    load_server_settings,
    validate_settings,
)
from streams import STREAMS

TEXT = st.text(
    st.characters(exclude_categories=("Cs",)), max_size=30
)  # lone surrogates are no text


@given(
    TEXT,
    st.integers(0, 9**9),
    st.lists(st.tuples(st.integers(0, 10**6), TEXT, st.floats(0, 100)), max_size=4),
)
def test_what_export_writes_is_read_back(name, first, injections):
    source = {
        "stream": name,
        "first": first,
        "injections": [{"step": s, "kind": k, "size": z} for s, k, z in injections],
    }
    settings = Settings("EWMA", 33, 2.75, "high")
    assert import_settings(export_settings(source, settings)) == (source, settings)


def test_every_control_character_in_a_name_is_read_back():
    name = "".join(map(chr, (*range(32), 127, *range(128, 160), 0x2028))) + '"\\'
    assert import_settings(export_settings({"stream": name}, Settings()))[0] == {"stream": name}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threshold": 99.0}, "threshold: wanted 1.5 to 12 σ; came 99.0"),
        ({"window": True}, "window: wanted"),
        ({"direction": "up"}, "direction: wanted one of both, high, low; came 'up'"),
        ({"detector": "x"}, "detector: wanted one of rolling z-score, .*; came 'x'"),
        ({"threshold": float("nan")}, "threshold: wanted 1.5 to 12 σ; came nan"),
        ({"window": 60.5}, "window: wanted 10 to 500 steps; came 60.5"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_wanted_and_what_came(change, sentence):
    with pytest.raises(SettingsError, match=sentence):
        validate_settings(replace(Settings("EWMA"), **change))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[settings]", r"the table \[source\] is missing"),
        ("[source]\n[settings]\nspeed = 3", "unknown setting 'speed'"),
        ("= 3", "wanted TOML"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(SettingsError, match=sentence):
        import_settings(text)


def test_the_defaults_lie_within_their_own_bounds():
    assert validate_settings(Settings()) == Settings()
    assert load_server_settings({}, environment={}) == ServerSettings()
    assert len(SETTINGS_BY_NAME) == len(STREAM_SETTINGS) + len(SERVER_SETTINGS)
    assert all(row.help for row in SETTINGS_BY_NAME.values())


def test_the_command_line_comes_before_the_environment_the_file_and_the_default():
    table = {"port": 9000, "db": "", "rate-limit": 5, "body-limit": 8}
    environment = {"REDLINE_PORT": "9001", "REDLINE_BODY_LIMIT": "16", "REDLINE_DB": ""}
    found = load_server_settings({"port": "9002", "db": None}, table, environment)
    assert (found.port, found.body_limit, found.rate_limit, found.db) == (9002, 16, 5, "")
    assert found.retention_days == ServerSettings().retention_days


@pytest.mark.parametrize("given", ["a.example B", ["a.example", "B"], ("a.example", "B")])
def test_names_are_a_list_or_a_text_with_spaces(given):
    assert load_server_settings({"allow-host": given}).allow_host == ("a.example", "B")
    found = load_server_settings({}, {}, {"REDLINE_ALLOW_HOST": "a.example B"})
    assert found.allow_host == ("a.example", "B")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"port": "x"}, "port: wanted 1 to 65,535; came 'x'"),
        ({"port": 0}, "port: wanted 1 to 65,535; came 0"),
        ({"retention-rows": 1}, "retention-rows: wanted 100,000 to 1,000,000,000,000 points"),
        ({"prot": 1}, "unknown setting 'prot'; known are host, "),
        ({"allow-host": [7]}, "allow-host: wanted names; came 7"),
    ],
)
def test_a_wrong_server_setting_is_named_with_what_was_wanted_and_what_came(table, sentence):
    with pytest.raises(SettingsError, match=sentence):
        load_server_settings({}, table)


@pytest.mark.parametrize("domain", STREAMS)
def test_a_stream_starts_with_its_preset_and_the_defaults_for_the_rest(domain):
    preset = STREAMS[domain].preset
    assert preset["detector"] != "" and preset["threshold"] > 0
    assert initial_settings(STREAMS[domain]()) == replace(Settings(), **preset)


def test_a_preset_of_another_name_or_out_of_bounds_is_refused_in_words():
    wave = STREAMS["wave"]()
    for preset, sentence in (
        ({"speed": 3}, "unknown setting 'speed'"),
        ({"window": 3}, "window: wanted 10 to 500 steps; came 3"),
        ({"detector": "magic"}, "detector: wanted one of rolling z-score"),
    ):
        wave.preset = preset
        with pytest.raises(SettingsError, match=sentence):
            initial_settings(wave)
