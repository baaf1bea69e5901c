"""A real HTTP server that records what channels send."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATIENCE = 5.0  # seconds a test waits for another thread before it fails


class Receiver:
    """A real HTTP server that records requests and answers with the statuses a test sets."""

    def __init__(self):
        self.got, self.answers, self.turn, self.gate = (
            [],
            [],
            threading.Condition(),
            threading.Event(),
        )
        self.gate.set()
        self.headers = {}  # further ones of every answer
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with receiver.turn:
                    receiver.got.append((self.path, None, dict(self.headers)))
                self.send_error(404)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with receiver.turn:
                    receiver.got.append((self.path, json.loads(body), dict(self.headers)))
                    status = receiver.answers.pop(0) if receiver.answers else 200
                    receiver.turn.notify_all()
                receiver.gate.wait(PATIENCE)
                self.send_response(status)
                self.send_header("Content-Length", "2")
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    def wait(self, count):
        with self.turn:
            assert self.turn.wait_for(lambda: len(self.got) >= count, PATIENCE), (
                f"{len(self.got)} of {count} came"
            )

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
