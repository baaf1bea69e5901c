"""The simulated streams: the same numbers however cut, anomalies of the stated size and rate."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streams
from streams import (
    KINDS,
    MIN_CALM_STEPS,
    SIMULATION_BLOCK,
    SIMULATION_START,
    STREAMS,
    Chunk,
    Injection,
    Simulated,
    Stream,
)

DOMAINS = sorted(STREAMS)
every_domain = pytest.mark.parametrize("domain", DOMAINS)
every_kind = pytest.mark.parametrize("kind", KINDS[1:])
cuts = st.lists(st.integers(0, 700), min_size=1, max_size=8)
wishes = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(KINDS[1:]), st.floats(0.5, 20)), max_size=6
)


def same(one: Chunk, other: Chunk) -> bool:
    """Return whether two chunks are equal to the bit, with NaN equal to NaN."""
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other))


def joined(chunks: list[Chunk]) -> Chunk:
    return Chunk(*(np.concatenate(part) for part in zip(*chunks)))


def runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, row, False]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def index(kind: str) -> int:
    return KINDS.index(kind)


# The interface


def test_every_domain_is_listed_in_order_and_says_what_it_is():
    names = "wave cpu finance network fraud electricity machine server stocks iot"
    names += " web-service health"
    assert list(STREAMS) == names.split()
    assert set(STREAMS.values()) == set(Simulated.__subclasses__())
    assert len({kind.title for kind in STREAMS.values()}) == len(STREAMS)


@every_domain
def test_a_domain_describes_each_of_its_features(domain):
    made = STREAMS[domain]()
    features = len(made.names)
    for part in (made.units, made.floors, made.limits, made.sides):
        assert len(part) == features
    assert made.profile().shape == (made.season, features)
    assert made.title and made.about.endswith(".") and made.notes == {}
    assert all(made.units) and min(made.floors) > 0 and made.period > 0
    chunk = made.take(5)
    assert chunk.x.shape == chunk.label.shape == (5, features) and chunk.time.shape == (5,)


def test_a_real_stream_refuses_an_injection():
    class Real(Stream):
        title = "Real"

        def take(self, steps: int) -> Chunk:
            return Chunk(np.zeros(0), np.zeros((0, 1)), None)

    with pytest.raises(ValueError, match="Real is real"):
        Real().inject("point", 8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: STREAMS["wave"](rate=0.2), "rate"),
        (lambda: STREAMS["wave"](rate=float("nan")), "rate"),
        (lambda: STREAMS["wave"](seed=-1), "seed"),
        (lambda: STREAMS["wave"]().take(-1), "steps"),
        (lambda: STREAMS["wave"]().skip(-1), "steps"),
        (lambda: STREAMS["wave"]().inject("none", 8), "point, contextual"),
        (lambda: STREAMS["wave"]().inject("spike", 8), "'spike'"),
        (lambda: STREAMS["wave"]().inject("point", 0), "size"),
        (lambda: STREAMS["wave"]().inject("point", float("nan")), "size"),
        (lambda: STREAMS["wave"](injections=[(-1, "point", 8)]), "step 0 or later"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(wrong, message):
    with pytest.raises(ValueError, match=f"wanted .*{message}.*got|wanted .*got.*{message}"):
        wrong()


# The same numbers, however they are cut


@every_domain
def test_step_by_step_equals_at_once(domain):
    one, other = STREAMS[domain](3, 0.1), STREAMS[domain](3, 0.1)
    assert same(joined([one.take(1) for _ in range(1000)]), other.take(1000))


@every_domain
@settings(max_examples=8, deadline=None)
@given(cuts=cuts, seed=st.integers(0, 2**70), rate=st.sampled_from((0.0, 0.01, 0.1)))
def test_chunks_change_no_bit(domain, cuts, seed, rate):
    one, other = STREAMS[domain](seed, rate), STREAMS[domain](seed, rate)
    assert same(joined([one.take(steps) for steps in cuts]), other.take(sum(cuts)))


@every_domain
def test_skipped_steps_are_as_if_taken(domain):
    one, other = STREAMS[domain](5, 0.05), STREAMS[domain](5, 0.05)
    one.skip(3333)
    assert same(one.take(400), Chunk(*(part[3333:] for part in other.take(3733))))


@every_domain
def test_seeds_and_domains_give_their_own_noise(domain):
    assert same(STREAMS[domain](7).take(300), STREAMS[domain](7).take(300))
    assert not np.array_equal(
        STREAMS[domain](7).take(300).x, STREAMS[domain](8).take(300).x, equal_nan=True
    )
    starts = {name: made(0).draw("noise", 1).standard_normal() for name, made in STREAMS.items()}
    assert len(set(starts.values())) == len(starts)


@every_domain
def test_a_changed_chunk_does_not_reach_the_stream(domain):
    one, other = STREAMS[domain](2), STREAMS[domain](2)
    one.take(100).x[:] = 0
    other.take(100)
    assert same(one.take(SIMULATION_BLOCK), other.take(SIMULATION_BLOCK))


# Rates, kinds, places


@every_domain
def test_the_rate_moves_no_noise(domain):
    calm = STREAMS[domain](4, 0).take(6000).x
    for rate in (0.01, 0.1):
        chunk = STREAMS[domain](4, rate).take(6000)
        assert np.array_equal(chunk.x[chunk.label == 0], calm[chunk.label == 0])


@every_domain
def test_the_size_moves_no_event(domain):
    small = STREAMS[domain](4, 0.05, sizes=(1, 2)).take(4000)
    large = STREAMS[domain](4, 0.05, sizes=(8, 9)).take(4000)
    assert np.array_equal((small.label > 0).any(1), (large.label > 0).any(1))
    assert np.array_equal(small.label == index("point"), large.label == index("point"))


@every_domain
@pytest.mark.parametrize("rate", [0.005, 0.01, 0.05, 0.1])
def test_the_anomalous_share_is_the_rate_asked_for(domain, rate):
    label = STREAMS[domain](1, rate).take(int(300 / rate)).label
    assert (label > 0).any(1).mean() == pytest.approx(rate, rel=0.15)


@every_domain
def test_no_rate_no_anomaly(domain):
    chunk = STREAMS[domain](1, 0).take(5000)
    assert not chunk.label.any() and np.isfinite(chunk.x).all()


@every_domain
def test_every_kind_a_domain_has_comes_in_each_era(domain):
    made = STREAMS[domain](9, 0.05)
    for _ in range(3):
        kinds = {0, *map(index, made.habits)}
        assert set(np.unique(made.take(made._era).label)) == kinds
    assert set(made.habits) == set(KINDS[1:])


@every_domain
@pytest.mark.parametrize(("rate", "calm"), [(0.01, MIN_CALM_STEPS), (0.1, 8)])
def test_events_keep_their_length_and_a_calm_stretch_between_them(domain, rate, calm):
    made = STREAMS[domain](6, rate)
    label = made.take(3 * made._era).label
    spans = runs((label > 0).any(1))
    assert min(after - before for (_, before), (after, _) in pairwise(spans)) >= calm
    for start, stop in spans:
        (kind,) = set(np.unique(label[start:stop])) - {0}
        assert made.habits[KINDS[kind]].shortest <= stop - start <= made.habits[KINDS[kind]].longest


def test_a_failing_machine_shows_on_every_sensor():
    label = STREAMS["machine"](0, 0.05).take(5000).label == index("drift")
    assert label.any() and np.array_equal(label[:, 0], label[:, 1])


@pytest.mark.parametrize("kind", ["shift", "drift"])
def test_a_patient_who_gets_worse_does_so_in_all_four_signs_each_to_its_own_side(kind):
    made, twin = STREAMS["health"](11, 0), STREAMS["health"](11, 0)
    made.take(700)
    twin.skip(700)
    made.inject(kind, 6.0)
    chunk, calm = made.take(64), twin.take(64).x
    struck = chunk.label == index(kind)
    assert 12 <= struck[:, 0].sum() <= 30 and (struck == struck[:, :1]).all()
    away = ((chunk.x - calm) / made._base(700, 764)[1])[struck.any(1)]
    assert (np.sign(away) == made.sides).all() and made.sides == (1, -1, 1, -1)
    assert np.abs(away[-1]) == pytest.approx(6.0)


def test_a_web_service_is_smooth_and_keeps_the_week():
    made = STREAMS["web-service"](1, 0)
    x = made.take(made.season).x
    slope = np.abs(np.diff(made.profile(), axis=0)).max(0)
    assert (slope < 0.01 * made.profile().mean(0)).all()  # a minute changes little
    assert ((x - made.profile()).std(0) < 0.06 * made.profile().mean(0)).all()
    requests = made.profile()[:, 0].reshape(7, 1440).mean(1)
    assert requests[5:].max() < 0.9 * requests[:4].min()


# Sizes, in the numbers


@every_domain
def test_the_stated_spread_is_that_of_the_noise(domain, monkeypatch):
    monkeypatch.setattr(
        Simulated, "wander", lambda self, block: np.zeros((SIMULATION_BLOCK, len(self.names)))
    )
    made = [STREAMS[domain](seed, 0) for seed in range(128)]
    x = np.stack([one.take(48).x for one in made])  # (seeds, steps, features)
    spread = np.stack([one._base(0, 48)[1] for one in made])
    away = (x - x.mean(0)) / spread
    assert away.std((0, 1)) == pytest.approx(1, abs=0.12)


def deviation(domain: str, kind: str, size: float) -> np.ndarray:
    """Return how far an injection moved the values, in noise standard deviations.

    (steps of the event, features it struck), measured against the same stream without it.
    """
    made, twin = STREAMS[domain](11, 0), STREAMS[domain](11, 0)
    made.take(700)
    twin.take(700)
    made.inject(kind, size)
    chunk, calm = made.take(64), twin.take(64).x
    struck = (chunk.label > 0).any(0)
    away = (chunk.x - calm) / made._base(700, 764)[1]
    assert not away[chunk.label == 0].any()
    return away[(chunk.label > 0).any(1)][:, struck]


@every_domain
@pytest.mark.parametrize("size", [1.0, 6.0])
def test_a_size_is_real(domain, size):
    assert np.abs(deviation(domain, "point", size)) == pytest.approx(size)
    assert np.abs(deviation(domain, "shift", size)) == pytest.approx(size)
    assert np.abs(deviation(domain, "collective", size)).max() == pytest.approx(size)
    assert np.abs(deviation(domain, "collective", size))[0] == pytest.approx(size)
    drift = np.abs(deviation(domain, "drift", size))
    assert drift[-1] == pytest.approx(size) and (np.diff(drift, axis=0) > 0).all()


@every_domain
def test_dealt_points_are_of_the_size_asked_for(domain):
    made = STREAMS[domain](2, 0.05, sizes=(5, 7))
    calm = STREAMS[domain](2, 0).take(6000).x
    chunk = made.take(6000)
    point = chunk.label == index("point")
    size = np.abs(chunk.x - calm)[point] / made._base(0, 6000)[1][point]
    assert len(size) > 40 and size.max() <= 7.01 and np.median(size) > 5.3
    assert size.min() >= 4.99 or domain == "electricity"  # a load cannot fall below nothing


@every_domain
def test_a_contextual_value_is_unusual_only_for_its_hour(domain):
    made, twin = STREAMS[domain](3, 0.02), STREAMS[domain](3, 0)
    chunk, calm = made.take(20_000), twin.take(20_000).x
    there = chunk.label == index("contextual")
    away = np.abs(chunk.x - calm)[there] / made._base(0, 20_000)[1][there]
    assert np.mean(away) > 3.5 and away.min() > 1.5
    for feature in range(len(made.names)):
        x = chunk.x[there[:, feature], feature]
        wide = made._base(0, 20_000)[1][:, feature].max()
        assert not len(x) or (
            calm[:, feature].min() - wide < x.min() and x.max() < calm[:, feature].max() + wide
        )


@every_domain
def test_a_stuck_sensor_repeats_its_last_value(domain):
    chunk = STREAMS[domain](8, 0.05).take(8000)
    seen = 0
    for feature in range(chunk.x.shape[1]):
        for start, stop in runs(chunk.label[:, feature] == index("stuck")):
            assert (chunk.x[start:stop, feature] == chunk.x[start - 1, feature]).all()
            seen += 1
    assert seen > 1


@every_domain
def test_a_gap_is_a_dropout_and_a_dropout_is_a_gap(domain):
    chunk = STREAMS[domain](8, 0.1).take(4000)
    assert np.array_equal(np.isnan(chunk.x), chunk.label == index("dropout"))
    assert np.isnan(chunk.x).any()


@every_domain
def test_nothing_leaves_its_physical_limits(domain):
    made = STREAMS[domain](5, 0.1, sizes=(20, 60))
    for kind in KINDS[1:]:
        made.inject(kind, 500)
    x = made.take(8000).x
    low, high = np.transpose(made.limits)
    assert (np.nanmin(x, 0) >= low).all() and (np.nanmax(x, 0) <= high).all()
    assert not np.isinf(x).any()


def test_what_the_limits_are():
    assert STREAMS["cpu"].limits == ((0, 100),) and STREAMS["iot"].limits[0] == (0, 100)
    for domain in ("finance", "network", "fraud", "electricity", "server"):
        assert all(low == 0 for low, _ in STREAMS[domain].limits)


# Injections


@every_domain
@every_kind
def test_an_injection_shows_at_the_very_next_step(domain, kind):
    for before in (0, 1, SIMULATION_BLOCK - 1, 2 * SIMULATION_BLOCK, 1777):
        made, twin = STREAMS[domain](1, 0), STREAMS[domain](1, 0)
        made.take(before)
        twin.skip(before)
        made.inject(kind, 8)
        assert made.injections == [Injection(before, kind, 8)]
        now, calm = made.take(1), twin.take(1)
        struck = now.label[0] == index(kind)
        assert struck.any() and not now.label[0][~struck].any()
        changed = (now.x != calm.x)[0]  # NaN is a change
        assert changed[struck].all() or (before == 0 and kind == "stuck")
        assert not changed[~struck].any()


@every_domain
@every_kind
def test_an_injection_shows_whatever_is_going_on(domain, kind):
    made = STREAMS[domain](1, 0.1)
    for _ in range(25):
        made.take(37)
        made.inject(kind, 8)
        assert (made.take(1).label == index(kind)).any()


@every_domain
@settings(max_examples=8, deadline=None)
@given(wishes=wishes, cuts=cuts)
def test_a_replay_gives_the_very_same_numbers(domain, wishes, cuts):
    lived = STREAMS[domain](2, 0.05)
    chunks = []
    for steps, kind, size in wishes:
        chunks.append(lived.take(steps))
        lived.inject(kind, size)
    chunks.append(lived.take(300))
    replayed = STREAMS[domain](2, 0.05, injections=lived.injections)
    assert replayed.injections == lived.injections
    cuts = [*cuts, lived.step]
    again = [replayed.take(min(lived.step - replayed.step, cut)) for cut in cuts]
    assert same(joined(chunks), joined(again))


def test_injections_at_one_step_start_one_after_the_other_and_overlap():
    made, twin = STREAMS["wave"](1, 0), STREAMS["wave"](1, 0)
    for kind in ("shift", "point", "point", "dropout", "stuck"):
        made.inject(kind, 6)
    assert [injection.step for injection in made.injections] == [0, 1, 2, 3, 4]
    chunk, calm = made.take(6), twin.take(6)
    kinds = [KINDS[label] for label in chunk.label[:5, 0].tolist()]
    assert kinds == ["shift", "point", "point", "dropout", "stuck"]
    assert np.isnan(chunk.x[3, 0]) and chunk.x[4, 0] == chunk.x[5, 0]
    size = np.abs(chunk.x - calm.x)[:3, 0] / made._base(0, 3)[1][:, 0]
    assert size[0] == pytest.approx(6)
    assert all(min(abs(each - 12), each) < 1e-9 for each in size[1:])  # 6 + 6 or 6 - 6


@every_domain
def test_a_sensor_sticks_at_what_was_shown_last_even_if_that_was_anomalous(domain):
    made = STREAMS[domain](17, 0)
    made.take(100)
    for _ in range(40):
        made.inject("point", 8)
        shown = made.take(1).x
        made.inject("stuck", 8)
        stuck = made.take(1)
        there = stuck.label == index("stuck")
        assert (stuck.x[there] == shown[there]).all()
        made.take(60)


def test_an_injection_waits_for_no_replay():
    made = STREAMS["cpu"](injections=[(5000, "point", 8)])
    made.inject("point", 8)
    assert made.injections[-1].step == 0


def test_many_stuck_injections_at_once_stay_quick_and_end():
    made = STREAMS["iot"](0, 0)
    for _ in range(300):
        made.inject("stuck", 5)
    assert (made.take(290).label == index("stuck")).any(1).all()
    assert not made.take(1000).label[-900:].any()


# The picture


@every_domain
def test_a_calm_season_comes_back(domain):
    made = STREAMS[domain](13, 0)
    seasons = made.take(6 * made.season).x.reshape(6, made.season, -1)
    profile = made.profile()
    for feature in np.flatnonzero(np.ptp(profile, axis=0) > 0.01):
        early, late = seasons[:3, :, feature].mean(0), seasons[3:, :, feature].mean(0)
        assert np.corrcoef(early, late)[0, 1] > 0.35
        assert np.corrcoef(seasons[:, :, feature].mean(0), profile[:, feature])[0, 1] > 0.6


def test_work_fills_the_week_and_leaves_the_weekend():
    week = STREAMS["cpu"].profile(STREAMS["cpu"]())[:, 0].reshape(7, 288)
    noon, night = week[:, 132:192].mean(1), week[:, :48].mean(1)
    assert noon[:5].min() > 1.7 * night.max() and noon[5:].max() < 0.75 * noon[:5].min()


@every_domain
def test_no_seam_shows_where_blocks_and_seasons_meet(domain):
    made = STREAMS[domain](1, 0)
    end = 40 * SIMULATION_BLOCK
    jumps = np.abs(np.diff(made.take(end).x, axis=0)) / made._base(1, end)[1]
    seams = jumps[np.arange(SIMULATION_BLOCK - 1, 39 * SIMULATION_BLOCK, SIMULATION_BLOCK)]
    assert seams.mean(0) == pytest.approx(jumps.mean(0), rel=0.5)
    profile = made.profile()
    inside = np.abs(np.diff(profile, axis=0)).max(0)
    around = np.abs(np.diff(profile, axis=0, append=profile[:1])).max(0)
    assert around == pytest.approx(inside, rel=0.2)


def test_the_noise_is_of_its_kind():
    payments = STREAMS["fraud"](1, 0)
    x, calm = payments.take(7200).x, np.tile(payments.profile(), (5, 1))
    skew = lambda values: (((values - values.mean(0)) / values.std(0)) ** 3).mean(0)  # noqa: E731
    assert skew(x / calm).min() > 0.2 and np.abs(skew(np.log(x / calm))).max() < 0.15
    move = STREAMS["stocks"](1, 0).take(20_000).x[:, 0]
    assert ((move / move.std()) ** 4).mean() > 3.3  # fatter than a Gaussian's 3
    assert np.corrcoef(move[:-5] ** 2, move[5:] ** 2)[0, 1] > 0.05
    assert abs(np.corrcoef(move[:-1], move[1:])[0, 1]) < 0.05
    load = STREAMS["cpu"](1, 0)
    rest = (load.take(20_160).x - np.tile(load.profile(), (10, 1)))[:, 0]
    assert 0.4 < np.corrcoef(rest[:-1], rest[1:])[0, 1] < 0.65


@every_domain
def test_the_first_view_is_calm_with_a_few_marks(domain):
    """A rolling z-score over 120 steps, threshold 3.5, catches most points and few calm steps."""
    chunk = STREAMS[domain](21).take(8000)
    past = np.lib.stride_tricks.sliding_window_view(chunk.x, 120, axis=0)[:-1]
    score = np.abs(chunk.x[120:] - np.nanmean(past, -1)) / np.nanstd(past, -1)
    label = chunk.label[120:]
    near = np.convolve((label > 0).any(1), np.ones(12))[: len(label)] > 0
    assert (score[label == index("point")] > 3.5).mean() > 0.5
    assert (score > 3.5)[~near].any(1).mean() < 0.009


# The clock


@every_domain
def test_the_clock_starts_on_a_monday_and_moves_a_period_a_step(domain):
    made = STREAMS[domain]()
    time = np.concatenate([made.take(3).time, made.take(0).time, made.take(2).time])
    assert made.take(0).time.shape == (0,)
    assert np.datetime64(SIMULATION_START, "s") == np.datetime64("2026-01-05T00:00:00")
    assert time == pytest.approx(SIMULATION_START + made.period * np.arange(5), abs=1e-6)
    assert made.step == 5


@every_domain
def test_ten_million_steps_on_nothing_is_lost(domain):
    near, far = STREAMS[domain](1, 0), STREAMS[domain](1, 0)
    rounds = 10_000_000 // near.season * near.season
    far.skip(rounds)
    early, late = near.take(4000), far.take(4000)
    assert (np.diff(late.time) > 0).all()
    assert late.time[0] == SIMULATION_START + near.period * rounds
    assert late.x.std(0) == pytest.approx(early.x.std(0), rel=0.5)
    assert not np.array_equal(early.x, late.x)


def test_memory_stays_bounded():
    made = STREAMS["iot"](0, 0.1)
    for _ in range(20):
        made.inject("stuck", 5)
        made.take(3000)
    assert len(made._blocks) <= 3
    assert len(made._decks) <= 3
    assert len(made._stuck_values) <= streams.MAX_STUCK_EVENTS + 1
    assert len(made._injected) == 0
