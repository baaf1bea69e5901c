"""Authorization by token, role, origin, host and rate, and which address may be served."""

import base64
import logging
import os
import stat
import threading
import time

import pytest

from redline.access.authorizer import (
    MAX_RATED_CLIENTS,
    Authorizer,
    RateLimiter,
    Refusal,
    exposure_problem,
    presented_secret,
)
from redline.access.hosts import HostError, Hosts, host_name, host_refusal, parse_proxies
from redline.access.throttle import FREE_WRONG_TOKENS, WRONG_TOKEN_SECONDS, TokenThrottle
from redline.access.tokens import (
    MIN_TOKEN_LENGTH,
    RELOAD_SECONDS,
    AuthError,
    Token,
    TokenFile,
    Tokens,
    append_token,
    expiry_after,
    hash_secret,
    load_tokens,
    mint_token,
    parse_token_file,
)


@pytest.fixture
def made(tmp_path):
    """Return the path of a token file with one token of each role, and their secrets."""
    path, secrets = tmp_path / "redline.tokens", {}
    for role in ("read", "push", "operate"):
        secrets[role], line = mint_token(role, f"the {role}er")
        append_token(path, line)
    return path, secrets


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


def test_a_file_keeps_only_hashes_and_only_for_its_owner(made):
    path, secrets = made
    text = path.read_text()
    assert (
        all(secret not in text for secret in secrets.values())
        and stat.S_IMODE(path.stat().st_mode) == 0o600
    )
    assert [(t.role, t.name) for t in parse_token_file(path)] == [
        (role, f"the {role}er") for role in secrets
    ]
    assert len(set(secrets.values())) == 3 and min(map(len, secrets.values())) >= 43


def test_each_role_may_do_what_those_before_it_may(made):
    path, secrets = made
    authorizer = Authorizer(load_tokens(str(path), None))
    asked = {
        "read": ("GET", "/api/streams"),
        "push": ("POST", "/api/submit"),
        "operate": ("POST", "/api/configure"),
    }
    for held, secret in secrets.items():
        passed = [
            role
            for role, (method, path) in asked.items()
            if isinstance(authorizer.authorize(method, path, bearer(secret)), Token)
        ]
        assert passed == list(asked)[: list(asked).index(held) + 1]
    refusal = authorizer.authorize("POST", "/api/configure", bearer(secrets["push"]))
    assert (
        refusal.status == 403
        and "may operate" in refusal.detail
        and "the pusher may push" in refusal.detail
    )


def test_without_a_right_token_everything_but_health_is_closed(made):
    path, secrets = made
    authorizer = Authorizer(load_tokens(str(path), "from the environment"))
    assert authorizer.authorize("GET", "/health", {}) is None
    for headers in (
        {},
        bearer(""),
        bearer("wrong"),
        bearer(secrets["read"][:-1]),
        {"authorization": "Basic !!"},
        {"authorization": secrets["read"]},
    ):
        for path in (
            "/",
            "/api/status",
            "/docs",
            "/openapi.json",
            "/_dash-update-component",
            "/health/",
        ):
            refusal = authorizer.authorize("GET", path, headers)
            assert (
                isinstance(refusal, Refusal)
                and refusal.status == 401
                and refusal.headers[0][0] == "WWW-Authenticate"
            )
    assert (
        authorizer.authorize("POST", "/api/configure", bearer("from the environment")).name
        == "environment"
    )


def test_a_browser_brings_the_token_as_its_password(made):
    _, secrets = made
    basic = base64.b64encode(f"anybody:{secrets['operate']}".encode()).decode()
    assert presented_secret({"authorization": f"Basic {basic}"}) == secrets["operate"]
    assert presented_secret({"authorization": "Digest x"}) is None and presented_secret({}) is None


def test_every_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "redline.access.tokens.hmac.compare_digest", lambda a, b: compared.append(b) or a == b
    )
    long = [letter * MIN_TOKEN_LENGTH for letter in "abc"]
    tokens = Tokens(Token("read", hash_secret(secret), secret) for secret in long)
    assert tokens.find(long[0]).name == long[0] and tokens.find("z" * MIN_TOKEN_LENGTH) is None
    assert compared == [hash_secret(secret) for secret in long] * 2  # the first hit ends nothing


@pytest.mark.parametrize(
    "line",
    [
        "operate hunter2 me",
        "king sha256:" + "0" * 64 + " me",
        "read sha256:" + "0" * 63 + " me",
        "read sha256:" + "0" * 64,
        "read sha256:" + "0" * 64 + " until:hunter2 me",
        "read sha256:" + "0" * 64 + " until:2026-12-31T00:00:00Z",
        "read sha256:" + "0" * 64 + " until:2026-1",
    ],
)
def test_a_bad_line_is_named_and_never_repeated(tmp_path, line):
    (path := tmp_path / "t").write_text(f"# mine\n\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(AuthError, match="line 3") as caught:
        load_tokens(str(path), None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_token_file_that_becomes_a_pipe_holds_nobody_up(made, caplog):
    path, secrets = made
    ahead = [0.0]
    tokens = TokenFile(path, clock=lambda: ahead[0])
    path.unlink()
    os.mkfifo(path, 0o600)  # nothing ever writes to it
    ahead[0] = 2.0
    asked = threading.Thread(target=tokens.refresh, daemon=True)
    asked.start()
    asked.join(5.0)
    held_up = asked.is_alive()
    if held_up:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # lets the reader go
    assert not held_up and tokens.failures == 1
    assert "came a pipe" in caplog.text
    assert tokens.find(secrets["read"]) is not None, "the tokens before stay"


@pytest.mark.parametrize(
    ("role", "name"),
    [("king", "me"), ("read", " "), ("read", "a\nb"), ("read", "until:x y"), ("read", "a\x85b")],
)
def test_a_token_needs_a_role_and_a_name(role, name):
    with pytest.raises(AuthError, match="wanted"):
        mint_token(role, name)


# --- the token file


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o666])
def test_a_token_file_that_others_may_read_or_write_is_refused_with_the_line_that_mends_it(
    made, mode
):
    path, _ = made
    path.chmod(mode)
    for use in (lambda: load_tokens(str(path), None), lambda: append_token(path, "x")):
        with pytest.raises(AuthError, match=f"chmod 600 {path}") as caught:
            use()
        assert f"mode {mode:04o}" in str(caught.value)
    path.chmod(0o400)
    assert load_tokens(str(path), None)


@pytest.mark.parametrize("text", [b"", b"\n", b"# operate comes later\n\n", b"\xff\xfe\n"])
def test_a_token_file_without_a_token_opens_nothing(tmp_path, text):
    (path := tmp_path / "t").write_bytes(text)
    path.chmod(0o600)
    for secret in (None, "a" * MIN_TOKEN_LENGTH):
        with pytest.raises(AuthError, match="wanted"):
            load_tokens(str(path), secret)


@pytest.mark.parametrize("secret", ["", "x", "a" * (MIN_TOKEN_LENGTH - 1)])
def test_a_short_token_is_refused_at_the_start_and_opens_nothing_from_a_file(secret):
    with pytest.raises(AuthError, match="REDLINE_TOKEN: wanted at least 16 characters") as caught:
        load_tokens(None, secret)
    assert len(secret) < 2 or secret not in str(caught.value)
    assert Tokens([Token("operate", hash_secret(secret), "me")]).find(secret) is None
    assert load_tokens(None, "a" * MIN_TOKEN_LENGTH).find("a" * MIN_TOKEN_LENGTH)


def test_a_line_is_added_after_one_that_does_not_end(made):
    path, _ = made
    path.write_text(path.read_text().rstrip())
    append_token(path, mint_token("read", "me")[1])
    assert [token.name for token in parse_token_file(path)][-2:] == ["the operateer", "me"]


def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(made, caplog):
    path, secrets = made
    now = [0.0]
    tokens = TokenFile(path, [Token("read", hash_secret("e" * 20), "environment")], lambda: now[0])
    held = tokens.find(secrets["push"])
    lines = path.read_text().splitlines()

    def rewrite(text):
        path.write_text(text)
        now[0] += RELOAD_SECONDS

    rewrite("\n".join(line for line in lines if not line.startswith("push")))
    assert tokens.find(secrets["push"]) is None and not tokens.is_valid(held, 0.0)
    assert tokens.find(secrets["read"]) and tokens.find("e" * 20)
    for broken in ("", "operate hunter2 me"):
        caplog.clear()
        rewrite(broken)
        for _ in range(3):  # it is logged once
            assert tokens.find(secrets["read"]) and tokens.find(secrets["push"]) is None
            now[0] += RELOAD_SECONDS
        assert len(caplog.records) == 1 and "tokens before stay" in caplog.text
        assert "hunter2" not in caplog.text
    path.chmod(0o644)
    path.unlink()
    now[0] += RELOAD_SECONDS
    assert tokens.find(secrets["read"]) and tokens.failures == 3
    append_token(path, lines[1])
    now[0] += RELOAD_SECONDS
    assert tokens.find(secrets["push"]) == held and tokens.find(secrets["read"]) is None


def test_a_token_expires(tmp_path):
    path, now = tmp_path / "t", time.time()
    for name, days in (("over", -1), ("lasts", 1)):
        until = expiry_after(1, now + (days - 1) * 86_400)
        secret, line = mint_token("read", name, until)
        append_token(path, line)
        authorizer = Authorizer(load_tokens(str(path), None))
        found = authorizer.authorize("GET", "/api/status", bearer(secret))
        if name == "lasts":
            assert found.name == name and found.until == pytest.approx(until, abs=1)
            assert found.is_expired(until + 1)
            assert not authorizer.tokens.is_valid(found, until + 1)
        else:
            assert found.status == 401 and "expired at 20" in found.detail
    for days in (0, -1, float("nan"), 1e9):
        with pytest.raises(AuthError, match="--days: wanted more than 0"):
            expiry_after(days, now)
    path.write_text(f"read sha256:{'0' * 64} until:2027-01-01 me\n")
    assert parse_token_file(path)[0].until == 1_798_761_600  # without a zone: UTC


# --- wrong tokens


def test_wrong_tokens_have_to_wait_and_a_right_one_is_not_found_among_them(made):
    path, secrets = made
    authorizer = Authorizer(load_tokens(str(path), None))

    def ask(secret, client="10.0.0.4"):
        found = authorizer.authorize("GET", "/api/status", bearer(secret), client)
        return found if isinstance(found, Refusal) else 200

    asked = [ask(f"wrong token {i:08}") for i in range(1_000)]
    assert [found.status for found in asked[: FREE_WRONG_TOKENS + 1]] == [401] * 10 + [429]
    assert [found.status for found in asked].count(401) <= FREE_WRONG_TOKENS + 1
    name, seconds = asked[-1].headers[0]
    assert name == "Retry-After" and 1 <= int(seconds) <= WRONG_TOKEN_SECONDS
    throttle = authorizer.throttle
    assert throttle.wrong + throttle.throttled == 1_000 and throttle.throttled > 980
    assert ask(secrets["read"]).status == 429, "it must not tell a right token from a wrong one"
    assert ask(secrets["read"], "10.0.0.5") == 200 and ask("").status == 401
    assert authorizer.refused == {"no_token": 1}


def test_a_forgotten_program_with_an_old_token_shuts_out_no_other_behind_its_address(made):
    path, secrets = made
    authorizer = Authorizer(load_tokens(str(path), None))

    def ask(secret):
        return authorizer.authorize("GET", "/api/status", bearer(secret), "10.0.0.4")

    old = [ask("an old token, revoked").status for _ in range(100)]
    assert old[0] == 401 and old[-1] == 429
    assert isinstance(ask(secrets["read"]), Token)
    for i in range(100):
        ask(f"wrong token {i:08}")
    assert isinstance(ask(secrets["read"]), Token), "it worked from there before"
    assert ask(secrets["push"]).status == 429


def test_a_client_that_waits_is_let_in_again_and_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("redline.access.throttle.MAX_ALLOWANCES", 50)
    monkeypatch.setattr("redline.access.throttle.MAX_KNOWN_PAIRS", 50)
    throttle = TokenThrottle()
    for i in range(FREE_WRONG_TOKENS):
        assert throttle.wait("2001:db8::1", str(i), 0.0) == 0
        throttle.refuse("2001:db8::1", str(i), "GET /", 0.0)
    assert throttle.wait("2001:db8::ffff", "new", 0.0) == WRONG_TOKEN_SECONDS  # the same network
    assert throttle.wait("2001:db8:0:1::1", "new", 0.0) == 0
    assert throttle.wait("2001:db8::1", "new", WRONG_TOKEN_SECONDS) == 0
    for i in range(1_000):
        throttle.refuse(f"10.0.{i // 256}.{i % 256}", "x", "GET /", 1.0)
        throttle.accept(f"10.0.{i // 256}.{i % 256}", "y")
    assert len(throttle.allowances) == len(throttle.known) == 50


def test_wrong_tokens_are_logged_once_a_second_with_their_number_and_without_themselves(caplog):
    caplog.set_level(logging.WARNING)
    throttle = TokenThrottle()
    for i in range(3_000):
        throttle.refuse("10.0.0.4", f"hunter2 {i}", "GET '/api/status'", i / 1_000)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and "hunter2" not in caplog.text
    assert "from 10.0.0.4 for GET '/api/status'; 1000 since the last" in lines[1]


def test_a_path_cannot_forge_a_line_of_the_log(made, caplog):
    path, _ = made
    authorizer = Authorizer(load_tokens(str(path), None))
    authorizer.authorize("GET", "/api/x\nERROR forged" + "y" * 9_000, bearer("w" * 20), "10.0.0.4")
    assert "\n" not in caplog.records[0].getMessage() and len(caplog.records[0].getMessage()) < 500


def test_no_other_address_is_served_without_a_token():
    assert (
        exposure_problem("127.0.0.1", Tokens()) is None
        and exposure_problem("0.0.0.0", Tokens([Token("read", hash_secret("x"), "x")])) is None
    )
    for host in ("0.0.0.0", "::", "10.0.0.4", "example.org"):
        assert "no token is set" in (exposure_problem(host, Tokens()) or "")


def test_a_page_from_elsewhere_changes_nothing_unless_it_is_listed():
    authorizer, there = (
        Authorizer(Tokens(), ("https://ops.example",)),
        {"host": "localhost:8050"},
    )
    judged = {
        origin: authorizer.authorize("POST", "/api/configure", {**there, "origin": origin})
        for origin in ("http://localhost:8050", "https://ops.example")
    }
    assert (
        judged == dict.fromkeys(judged)
        and authorizer.authorize("POST", "/api/configure", there) is None
    )
    for origin in (
        "https://evil.example",
        "http://localhost:9999",
        "null",
        "http://[",
        "x://localhost:8050",
    ):
        assert (
            authorizer.authorize("POST", "/api/configure", {**there, "origin": origin}).status
            == 403
        )
    assert (
        authorizer.authorize("GET", "/api/status", {**there, "origin": "https://evil.example"})
        is None
    )  # the browser keeps the answer from that page


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:8050", "localhost"),
        ("localhost.:8050", "localhost"),
        ("redline.localhost:", "redline.localhost"),
        ("127.0.0.1:65535", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]:8050", "::1"),
        ("[FD00::7]:8050", "fd00::7"),
        ("my_service:80", "my_service"),
        ("127.1", "127.1"),  # a browser writes 127.0.0.1, so this one stays a name
        *(
            (bad, None)
            for bad in ("", ".", ":80", "a..b", "localhost..", "::1", "[::1", "[127.0.0.1]")
        ),
        *(
            (bad, None)
            for bad in ("[::1]x", "[g::1]", "a:80:80", "a:x", "a:123456", "a b", "a@localhost")
        ),
        *(
            (bad, None)
            for bad in (
                "http://localhost",
                "localhost/",
                "localhost,evil",
                "localhost\n",
                "ö.example",
            )
        ),
    ],
)
def test_a_host_header_has_one_spelling_or_is_malformed(header, name):
    assert host_name(header) == name


HERE = ("localhost", "x.y.localhost:1", "127.0.0.1:8050", "127.8.9.10", "[::1]:8050", "LOCALHOST.")
ELSEWHERE = (
    "evil.example:8050",
    "evillocalhost",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.1",
)
AWAY = ("192.168.1.7:8050", "0.0.0.0", "[fd00::7]")  # addresses that are not loopback


@pytest.mark.parametrize(
    ("hosts", "taken", "refused"),
    [
        (Hosts(), HERE, (*ELSEWHERE, *AWAY)),
        (
            Hosts.from_options("192.168.1.7", ()),
            (*HERE, "192.168.1.7:1"),
            (*ELSEWHERE, "192.168.1.8", "[fd00::7]"),
        ),
        (
            Hosts.from_options("Redline.LAN.", []),
            (*HERE, "redline.lan:8050"),
            (*ELSEWHERE, *AWAY, "a.redline.lan"),
        ),
        (Hosts.from_options("fd00:0::7", ()), (*HERE, "[fd00::7]:8050"), (*ELSEWHERE, "[fd00::8]")),
        (Hosts.from_options("0.0.0.0", ()), (*HERE, *AWAY), ELSEWHERE),
        (Hosts.from_options("::", ()), (*HERE, *AWAY), ELSEWHERE),
        (Hosts.from_options("", ()), (*HERE, *AWAY), ELSEWHERE),
        (
            Hosts.from_options("0.0.0.0", ["Redline.Example."]),
            (*HERE, *AWAY, "redline.example:443"),
            ELSEWHERE,
        ),
        (
            Hosts.from_options("127.0.0.1", "a.example"),
            (*HERE, "A.example"),
            (*ELSEWHERE, *AWAY, "b.a.example"),
        ),
        (
            Hosts.from_options("127.0.0.1", ("b", "fd00::7")),
            (*HERE, "b:1", "[fd00::7]"),
            (*ELSEWHERE, "0.0.0.0"),
        ),
    ],
)
def test_a_server_answers_for_its_own_hosts_alone(hosts, taken, refused):
    assert [host_refusal([host], hosts) for host in taken] == [None] * len(taken)
    assert [(host, host_refusal([host], hosts).status) for host in refused] == [
        (host, 421) for host in refused
    ]


def test_a_refused_host_is_told_what_was_wanted_and_a_request_has_exactly_one():
    refusal = host_refusal(
        ["evil.example:8050"], Hosts.from_options("0.0.0.0", ["redline.example"])
    )
    for words in (
        "wanted one of localhost",
        "any IP address, redline.example",
        "came 'evil.example:8050'",
        "--allow-host",
    ):
        assert words in refusal.detail
    for came in ([], ["localhost", "localhost"], ["localhost", "evil.example"], ["a b"], [""]):
        assert host_refusal(came, Hosts()).status == 400
    assert len(host_refusal(["a" * 60_000], Hosts()).detail) < 500


@pytest.mark.parametrize(
    "name", ["", "https://a.example", "a.example:443", "a/b", "*.a.example", "*", "ö.example", 7]
)
def test_an_allowed_host_is_a_plain_name(name):
    with pytest.raises(HostError, match="--allow-host: wanted a host name"):
        Hosts.from_options("127.0.0.1", [name])


def test_allowed_hosts_are_a_list():
    with pytest.raises(HostError, match="wanted a list"):
        Hosts.from_options("127.0.0.1", 7)


def test_a_trusted_proxy_is_an_address_or_a_network():
    assert parse_proxies(["10.0.0.7", "::1", "10.0.0.7/8"]) == ("10.0.0.7", "::1", "10.0.0.0/8")
    for name in ("*", "", "proxy.example", "10.0.0.4:80", "10.0.0.0/33"):
        with pytest.raises(HostError, match="--trust-proxy: wanted an address"):
            parse_proxies([name])


def test_a_client_has_an_allowance_of_its_own_that_grows_with_time():
    limiter = RateLimiter(10)
    assert [limiter.acquire("a", 0.0) for _ in range(20)] == [
        0.0
    ] * 20  # two seconds' worth at once
    assert limiter.acquire("a", 0.0) == pytest.approx(0.1) and limiter.acquire("b", 0.0) == 0.0
    assert (
        limiter.acquire("a", 0.1) == 0.0 and limiter.acquire("a", 0.1) > 0 and limiter.refused == 2
    )
    for client in range(MAX_RATED_CLIENTS + 5):
        limiter.acquire(str(client), 1.0)
    assert len(limiter.allowances) == MAX_RATED_CLIENTS and RateLimiter(0).acquire("a", 0.0) == 0.0


@pytest.mark.parametrize("header", ["Basic \xe9", "Basic ////", "Basic =", "Bearer \xe9", "\xe9"])
def test_a_header_that_is_no_base64_is_refused(header):
    token = Token("operate", hash_secret("a secret of the test"), "ann")
    refusal = Authorizer(Tokens([token])).authorize(
        "GET", "/api/streams", {"authorization": header}
    )
    assert isinstance(refusal, Refusal) and refusal.status == 401
