"""Authorization by token, role, origin, host and rate, and which address may be served."""

import base64
import stat

import pytest

from redline.access.authorizer import (
    MAX_RATED_CLIENTS,
    Authorizer,
    RateLimiter,
    Refusal,
    exposure_problem,
    presented_secret,
)
from redline.access.hosts import HostError, Hosts, host_name, host_refusal
from redline.access.tokens import (
    AuthError,
    Token,
    Tokens,
    append_token,
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
    authorizer = Authorizer(load_tokens(str(path), None), RateLimiter(0))
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
    authorizer = Authorizer(load_tokens(str(path), "from the environment"), RateLimiter(0))
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
    tokens = Tokens(Token("read", hash_secret(secret), secret) for secret in "abc")
    assert tokens.find("a").name == "a" and tokens.find("z") is None
    assert compared == [hash_secret(secret) for secret in "abc"] * 2  # the first hit ends nothing


@pytest.mark.parametrize(
    "line",
    [
        "operate hunter2 me",
        "king sha256:" + "0" * 64 + " me",
        "read sha256:" + "0" * 63 + " me",
        "read sha256:" + "0" * 64,
    ],
)
def test_a_bad_line_is_named_and_never_repeated(tmp_path, line):
    (path := tmp_path / "t").write_text(f"# mine\n\n{line}\n")
    with pytest.raises(AuthError, match="line 3") as caught:
        load_tokens(str(path), None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("role", "name"), [("king", "me"), ("read", " "), ("read", "a\nb")])
def test_a_token_needs_a_role_and_a_name(role, name):
    with pytest.raises(AuthError, match="wanted"):
        mint_token(role, name)


def test_no_other_address_is_served_without_a_token():
    assert (
        exposure_problem("127.0.0.1", Tokens()) is None
        and exposure_problem("0.0.0.0", Tokens([Token("read", hash_secret("x"), "x")])) is None
    )
    for host in ("0.0.0.0", "::", "10.0.0.4", "example.org"):
        assert "no token is set" in (exposure_problem(host, Tokens()) or "")


def test_a_page_from_elsewhere_changes_nothing_unless_it_is_listed():
    authorizer, there = (
        Authorizer(Tokens(), RateLimiter(0), ("https://ops.example",)),
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
