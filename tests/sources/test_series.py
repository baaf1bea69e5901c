"""The identity of series, the directory that numbers them, and which of them are taken."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.sources import series as series_texts
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import SubmissionRefused, is_visible
from redline.sources.samples import NO_ROOM, NOT_SELECTED
from redline.sources.selectors import compile_regex, parse_selector, parse_selectors
from redline.sources.series import (
    SeriesKey,
    format_series,
    parse_series,
    series_key,
)

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.sampled_from(["up", "a.b:c_d", "wave", "9", "with space", 'q"', "{}", "ofén"]) | any_text
keys = st.builds(
    lambda name, labels: series_key(name, labels.items()),
    names,
    st.dictionaries(names, any_text | st.just("b\\"), max_size=4),
)
FIXED = {"deadline": None, "derandomize": True, "database": None}


@settings(max_examples=500, **FIXED)
@given(keys)
def test_a_series_is_what_its_text_says(key):
    text = format_series(key)
    assert parse_series(text) == key
    assert text.isprintable() and (is_visible(text) or not text.isascii())


@settings(max_examples=300, **FIXED)
@given(keys, keys)
def test_two_series_never_have_one_text(one, other):
    assert (format_series(one) == format_series(other)) == (one == other)


@settings(max_examples=300, **FIXED)
@given(keys)
def test_the_text_of_a_series_is_a_selector_that_takes_it(key):
    selection = parse_selectors([format_series(key)])
    assert selection.takes(key)
    assert not selection.takes(SeriesKey(key.name + "x", key.labels))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (SeriesKey("up", ()), "up"),
        (SeriesKey("wave", ()), "wave{}"),  # a tab of the page has this name
        (SeriesKey("up", (("b", "2"), ("c", "3"))), 'up{b="2",c="3"}'),
        (SeriesKey("a b", ()), '{"a b"}'),
        (SeriesKey("up", (("p", 'a"b\\c\nd'),)), 'up{p="a\\"b\\\\c\\nd"}'),
        (SeriesKey("up", (("p", "\u200b\U000e0001"),)), 'up{p="\\u200b\\U000e0001"}'),
        (SeriesKey("up", (("p", "é"),)), 'up{p="é"}'),
        (SeriesKey("up", (("p", "e\u0301"),)), 'up{p="e\\u0301"}'),  # looks as é does
    ],
)
def test_the_text_of_a_series(key, text):
    assert format_series(key) == text and parse_series(text) == key


@pytest.mark.parametrize(
    "text", ["oven 3", 'up{b="2",a="1"}', 'up{a="1"', "up{a=1}", 'up{a="1"}x', 'up{a="\\q"}', ""]
)
def test_any_other_text_is_a_name_without_labels(text):
    assert parse_series(text) == SeriesKey(text, ())


def test_labels_that_are_not_allowed_are_refused_with_the_limit():
    for labels, wanted in (
        ([("a", "1"), ("a", "2")], "every label once"),
        ([(f"l{i}", "x") for i in range(65)], "at most 64 labels"),
        ([("a", "x" * 1_025)], "at most 1,024 characters"),
        ([("n" * 201, "x")], "1 to 200 characters"),
        ([("", "x")], "1 to 200 characters"),
    ):
        with pytest.raises(SubmissionRefused, match=wanted):
            series_key("up", labels)
    for name in ("", "n" * 201):
        with pytest.raises(SubmissionRefused, match="1 to 200"):
            series_key(name, [])
    assert series_key("up", [("a", "")]) == SeriesKey("up", ())


# --- the directory


def test_forms_of_one_series_have_one_number():
    directory = SeriesDirectory()
    one = directory.door("one")
    key = SeriesKey("up", (("a", "1"),))
    assert directory.assign(one, b"x", key) == directory.assign(one, b"y", key) == 0
    assert directory.assign(directory.door("other"), b"x", SeriesKey("down", ())) == 1
    assert directory.number('up{a="1"}') == 0 and one == {b"x": 0, b"y": 0}
    assert directory.key(0) == key
    with pytest.raises(KeyError):
        directory.key(2)
    with pytest.raises(KeyError):
        directory.key(-1)


def test_a_number_is_never_given_again():
    directory = SeriesDirectory(max_series=2)
    door = directory.door("door")
    keys = [SeriesKey(name, ()) for name in "abcd"]
    assert [directory.assign(door, key.name, key) for key in keys] == [0, 1, NO_ROOM, NO_ROOM]
    directory.remove([0, 0])
    assert door == {"b": 1}  # those without room are tried again
    assert directory.assign(door, "c", keys[2]) == 2
    directory.remove([2])
    assert directory.assign(door, "c", keys[2]) == 3
    directory.remove([3])
    assert directory.assign(door, "a", keys[0]) == 4
    assert directory.texts == [None, "b", None, None, "a"]
    assert directory.counts == {"added": 5, "refused": 2, "removed": 3}


def test_threads_that_meet_new_series_agree_on_their_numbers():
    directory = SeriesDirectory(max_door_bytes=100_000)  # emptied meanwhile, several times
    keys = [SeriesKey("up", (("i", str(i)),)) for i in range(2_000)]

    def assign_all(seed):
        order = random.Random(seed).sample(range(len(keys)), len(keys))
        door = directory.door(f"door {seed % 2}")
        found = {i: directory.assign(door, b"%d" % i, keys[i]) for i in order}
        return [found[i] for i in range(len(keys))]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(assign_all, range(8)))
    assert all(result == results[0] for result in results)
    assert sorted(results[0]) == list(range(2_000)) and len(directory.texts) == 2_000
    assert [directory.key(number) for number in results[0]] == keys


def test_what_no_selector_takes_is_asked_once():
    asked = []
    selection = parse_selectors(['{__name__=~"node_.*"}'])
    directory = SeriesDirectory(lambda key: asked.append(key) or selection.takes(key))
    door = directory.door("door")
    assert directory.assign(door, b"a", SeriesKey("node_load1", ())) == 0
    assert directory.assign(door, b"b", SeriesKey("up", ())) == NOT_SELECTED == door[b"b"]
    assert len(asked) == 2 and directory.texts == ["node_load1"]


def test_distinct_label_sets_without_end_take_bounded_memory():
    directory = SeriesDirectory(max_series=2_000, max_text_bytes=300_000, max_door_bytes=1_000_000)
    door = directory.door("door")
    tracemalloc.start()
    for i in range(40_000):
        key = SeriesKey("churn", (("pod", f"{i:032d}"),))
        raw = b"%40d" % i
        number = directory.assign(door, raw, key)
        assert number in (i, NO_ROOM)
        assert directory.door_bytes <= 1_000_000 and directory.text_bytes <= 300_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20, f"{peak / 2**20:.1f} MiB"
    added = directory.counts["added"]
    assert directory.counts["refused"] == 40_000 - added and 1_000 < added <= 2_000
    assert directory.counts["doors emptied"] > 5


@pytest.mark.slow
def test_a_million_label_sets_are_bounded_and_counted():
    directory = SeriesDirectory(max_series=20_000, max_door_bytes=16 * 2**20)
    door = directory.door("door")
    most = 0
    for i in range(1_000_000):
        number = door.get(raw := b"%d" % i)
        if number is None:
            # as a reader does, but for the parsing
            directory.remember(door, raw, directory.number(raw.decode()))
        if not i % 10_000:
            most = max(most, directory.door_bytes)
    assert directory.counts["added"] == 20_000
    assert directory.counts["refused"] == 980_000
    assert most <= directory.max_door_bytes and len(directory.texts) == 20_000


# --- selectors


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("up", "up up{a} up{b}"),
        ('{__name__="up",job="a"}', "up{a}"),
        ('up{job!="a"}', "up up{b}"),
        ('up{job=~"a|x"}', "up{a}"),
        ('up{job=~"a|"}', "up up{a}"),  # an absent label is empty
        ('up{job!~"[ab]"}', "up"),
        ('{job=~".+"}', "up{a} up{b} down{a}"),
        ('{__name__=~"u"}', ""),  # the whole value
        ('{__name__=~"(?i)U."}', "up up{a} up{b}"),
        (" { 'job' = `a` , } ", "up{a} down{a}"),
        ('{"up", job="\\u0061"}', "up{a}"),
    ],
)
def test_a_selector_takes_what_prometheus_would(selector, taken):
    series = {
        "up": SeriesKey("up", ()),
        "up{a}": SeriesKey("up", (("job", "a"),)),
        "up{b}": SeriesKey("up", (("job", "b"),)),
        "down{a}": SeriesKey("down", (("job", "a"),)),
    }
    selection = parse_selectors([selector])
    assert [name for name, key in series.items() if selection.takes(key)] == taken.split()


def test_a_series_is_taken_if_any_selector_takes_it():
    selection = parse_selectors(["up", "down"])
    assert selection.takes(SeriesKey("up", ())) and selection.takes(SeriesKey("down", ()))
    assert not selection.takes(SeriesKey("x", ()))
    assert not parse_selectors([]).takes(SeriesKey("up", ()))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "up{", "}", "up}", "up{a}", 'up{a="b"', "up{a=b}", 'up{a=="b"}', 'up{a="b"}x'),
        *('{a=~".*"}', '{a!="x"}', '{a=""}', 'up{a="\\q"}', 'up{,a="b"}', "9up", "{" * 5_000),
        *('up{a="1"}{b="2"}', 'up{a="1" b="2"}', 'up{"a" "b"}', "'up'"),
    ],
)
def test_what_is_no_selector_is_refused(text):
    with pytest.raises(SubmissionRefused, match="selector: wanted"):
        parse_selector(text)


@pytest.mark.parametrize(
    "regex",
    [
        *("(a+)+b", "(a|a)*", "(a*)*", "((ab?)+)+", "(?:a+){5}", "(a?){40}", "(a{1,9}){1,9}"),
        *(".*a.*b.*c", ".*.*.*.*", "a{1,99}a{1,99}a{1,99}a{1,99}b", "a?" * 13, "(", "a**"),
        *(r"\1(a)", "(?=a)b", "(?<=a)b", "(?P=x)", "[[:alpha:]]", r"\pL", r"\Qa", "a++", "a{2,1}"),
    ],
)
def test_a_regular_expression_that_may_take_long_or_differs_from_re2_is_refused(regex):
    with pytest.raises(SubmissionRefused, match="selector: wanted"):
        compile_regex(regex)


@pytest.mark.parametrize(
    "regex",
    [
        *("node_.*", ".*foo.*bar.*", "(a|b)c", "(foo|bar)?-x", "(foo(-.+)?|x)", r"a\+\+", "[(+)]+"),
        *(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", "(?:ab)+", "[]a]+", r"[^\]]+x", "", "a|", r"\\1"),
    ],
)
def test_usual_regular_expressions_are_taken_and_quick(regex):
    pattern = compile_regex(regex)
    assert pattern.pattern == regex
    for value in ("a" * 1_024, "ab" * 512, "foobar" * 170, "foo" * 341 + "!", "1" * 1_024):
        began = time.thread_time()
        pattern.fullmatch(value)
        assert time.thread_time() - began < 0.5


def test_no_accepted_expression_takes_long():
    rng = random.Random(3)
    parts = ["a", "b", ".", "(a)", "[ab]", "*", "+", "?", "{1,3}", "|", "(", ")", ".*", "a+", "{9}"]
    accepted = 0
    for _ in range(4_000):
        regex = "".join(rng.choices(parts, k=rng.randint(1, 9)))
        try:
            pattern = compile_regex(regex)
        except SubmissionRefused:
            continue
        accepted += 1
        began = time.thread_time()
        for value in ("a" * 300 + "!", "ab" * 150 + "!"):
            pattern.fullmatch(value)
        assert time.thread_time() - began < 1, regex
        assert re.compile(regex, re.ASCII | re.DOTALL) == pattern
    assert accepted > 500


def test_the_short_way_for_plain_texts_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ['load{host="db3",job="x"}', "oven", "up{}", 'a{b="1",a="2"}', 'a{a="1",a="2"}']
    texts += ['{"disk usage","mount.point"="C:"}', 'x{a="q\\"",b="c"}', 'x{a="1,b"}', 'x{a="1"']
    texts += ["Pumpe Süd", 'x{a=""}', 'x{a="ü"}', 'x{a="1",}', f'x{{a="{"1" * 300}"}}', 'x{a="}"}']
    short = [parse_series(text) for text in texts]
    assert short[0] == ("load", (("host", "db3"), ("job", "x")))
    monkeypatch.setattr(series_texts, "_parse_plain", lambda text: None)
    for text, key in zip(texts, short):
        assert parse_series(text) == key, text
