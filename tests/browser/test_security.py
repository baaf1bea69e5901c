"""The security headers in a real browser, and who acts at the page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.browser import CHROMIUM, FLAGS, Server
from redline.access.tokens import append_token, mint_token
from redline.storage.sqlite import SqliteStore
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
WATCH = """window.violations = []; document.addEventListener('securitypolicyviolation',
  event => violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""
CSV = b"time,load\n" + b"".join(f"{i},{40 + i % 7}\n".encode() for i in range(400))


@pytest.fixture
def site() -> Iterator[str]:
    """Start another site, whose one page shows the address of its query in a frame."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<iframe src='{self.path.partition('?')[2]}'></iframe>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_page_does_all_it_can_under_its_policy(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    policies: list[str] = []

    def note(answer: Any) -> None:
        if answer.url.startswith(own_server.url):
            policies.append(answer.headers.get("content-security-policy", ""))

    visitor.page.on("response", note)
    visitor.context.add_init_script(WATCH)
    visitor.page.reload()
    visitor.until("eyes.lines().length && document.querySelector('#curve .js-plotly-plot')")
    for name in ("iot", "overview", "cpu"):
        visitor.tab(name)
    visitor.until("eyes.lines()[0] === 'CPU'")
    visitor.press("theme")
    visitor.press("inject-point")
    visitor.choose("detector", "CUSUM")
    visitor.slide("threshold", 5.0)
    for panel in visitor.page.locator("#lower label").all():
        panel.click()
    visitor.redraws(4)
    visitor.page.hover("#chart .nsewdrag >> nth=0")
    with visitor.page.expect_download():
        visitor.press("export")
    visitor.see("Plotly.toImage(eyes.plot(), {format: 'png'})")
    visitor.tab("your-data")
    visitor.drop("load.csv", CSV)
    visitor.until("eyes.lines()[0] === 'load'")
    assert visitor.see("violations") == []
    assert policies and all("'none'" in policy for policy in policies)
    (policy,) = {policy for policy in policies if "script-src" in policy}
    assert "unsafe-eval" not in policy and "script-src 'self' 'sha256-" in policy


def test_an_inline_script_that_was_smuggled_in_does_not_run(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="wave")
    visitor.see(WATCH)
    visitor.see("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"bad=1\">')")
    visitor.see(
        "{const s = document.createElement('script'); s.text = 'bad = 1'; document.body.append(s)}"
    )
    visitor.see("void setTimeout(() => Function('bad = 1')())")
    visitor.until("violations.length >= 3")
    assert visitor.see("typeof bad") == "undefined"
    visitor.console_errors.clear()


@pytest.mark.parametrize("path", ["/", "/docs", "/api/status"])
def test_no_other_site_shows_it_in_a_frame(
    server: Server, chromium: Any, site: str, path: str
) -> None:
    page = chromium.new_context().new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{site}/?{server.url}{path}")
    page.wait_for_load_state("networkidle")
    shown = page.frames[1]
    page.context.close()
    assert "frame-ancestors 'none'" in " ".join(said), (said, shown.url)


def test_a_route_is_tried_from_the_reference(server: Server, chromium: Any) -> None:
    page = chromium.new_context().new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"{server.url}/docs")
    form = page.locator("form[data-path='/api/data/{source}']")
    form.locator("input[name=source]").fill("wave")
    form.locator("input[name=limit]").fill("3")
    form.locator("button").click()
    form.locator("output:has-text('200 OK')").wait_for()
    assert "GET /api/data/wave?limit=3" in form.locator("output").inner_text()
    form = page.locator("form[data-path='/api/configure']")
    form.locator("textarea").fill('{"source": "wave", "threshold": 99}')
    form.locator("button").click()
    form.locator("output:has-text('422')").wait_for()
    assert "threshold: wanted" in form.locator("output").inner_text()
    form = page.locator("form[data-path='/api/stream/anomalies']")
    form.locator("button").click()
    form.locator("output:has-text('cut off here')").wait_for(timeout=15_000)
    page.context.close()
    assert [text for text in errors if "422" not in text] == []


def test_the_audit_log_names_the_owner_of_the_token_that_the_browser_sent(
    tmp_path: Path, enter: Enter
) -> None:
    secret, line = mint_token("operate", "Ada of the night shift")
    append_token(tmp_path / "tokens", line)
    with Server("--tokens", str(tmp_path / "tokens")) as server:
        look = {"http_credentials": {"username": "any", "password": secret}}
        visitor = enter(server, look, domain="wave")
        visitor.until("eyes.lines().length")
        visitor.slide("threshold", 5.0)
        visitor.press("apply")
        visitor.until("eyes.text('acted').includes('for everybody')")
        store = SqliteStore(Path(server.folder.name) / "redline.db", write=False)
        who = {row["what"]: row["who"] for row in store.audit(10)}
        store.close()
    assert who == {"applied settings": "Ada of the night shift"}


def test_a_name_that_was_bound_to_this_server_anew_reads_and_changes_nothing(
    own_server: Server, chromium: Any
) -> None:
    """DNS rebinding: a script of another site whose name leads to this server by now."""
    rebound = chromium.browser_type.launch(
        executable_path=CHROMIUM,
        args=[*FLAGS, "--host-resolver-rules=MAP evil.test 127.0.0.1"],
    )
    try:
        # without its policy the refusal is a document like one that came before the name was bound
        page = rebound.new_context(bypass_csp=True).new_page()
        assert page.goto(f"http://evil.test:{own_server.port}/").status == 421
        ask = "([method, path]) => fetch(path, {method}).then(answer => answer.status)"
        for method, path in (
            ("GET", "/"),
            ("GET", "/api/streams"),
            ("GET", "/api/events"),
            ("POST", "/api/submit"),
            ("POST", "/_dash-update-component"),
            ("DELETE", "/api/streams/wave"),
        ):
            assert page.evaluate(ask, [method, path]) == 421, (method, path)
        opened = page.evaluate(
            """() => new Promise(done => {
              const line = new WebSocket(`ws://${location.host}/_dash-update-component`);
              line.onopen = () => done(true); line.onerror = () => done(false); })"""
        )
        assert opened is False
        named = page.evaluate(
            "port => fetch(`http://127.0.0.1:${port}/api/streams`).then(() => 'read', () => 'no')",
            own_server.port,
        )
        assert named == "no", "an answer without CORS headers is not shown to another site"
    finally:
        rebound.close()
