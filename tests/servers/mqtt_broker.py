"""A real MQTT broker for the tests: Mosquitto, which keeps its sessions over an orderly restart."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bench.browser import free_port
from tests.servers.packaged import PATIENCE, PackagedServer, find_server

PASSWORD = "right-password"
CONFIG = """
per_listener_settings true
persistence true
persistence_location {folder}/
autosave_interval 0
max_queued_messages 100000
listener {port} 127.0.0.1
allow_anonymous true
listener {secured} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
"""


class MqttBroker(PackagedServer):
    """One broker; its second port asks for the name ann and her password."""

    def __init__(self) -> None:
        super().__init__("mosquitto")
        self.secured_port = free_port()
        self.passwords = self.folder / "passwords"
        self.passwords.write_text(f"ann:{password_hash(PASSWORD)}\n")
        self.config = self.folder / "mosquitto.conf"
        self.config.write_text(
            CONFIG.format(folder=self.folder, port=self.port, secured=self.secured_port)
        )
        for each in (self.folder, self.passwords):  # it may give up the rights of root
            each.chmod(0o777)

    def words(self) -> list[str]:
        """Return the arguments of the program."""
        return ["-c", str(self.config)]

    @property
    def address(self) -> str:
        """Return where clients reach it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def write(
        self, messages: Sequence[tuple[str, bytes]], qos: int = 1, retain: bool = False
    ) -> None:
        """Publish messages and wait until the broker has them."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client: Any = Client(CallbackAPIVersion.VERSION2)
        client.max_inflight_messages_set(1_000)
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        assert connected.wait(PATIENCE)
        sent = [client.publish(topic, payload, qos, retain) for topic, payload in messages]
        for each in sent:
            each.wait_for_publish(PATIENCE)
        client.disconnect()
        client.loop_stop()


def password_hash(password: str) -> str:
    """Return a password as the file of Mosquitto holds it."""
    salt = b"salt-of-test"
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"$7$101${base64.b64encode(salt).decode()}${base64.b64encode(key).decode()}"


@pytest.fixture(scope="session")
def mqtt_broker() -> Iterator[MqttBroker]:
    """Give a running broker; without one, skip and say why."""
    pytest.importorskip("paho", reason="paho-mqtt is not installed: pip install 'redline[mqtt]'")
    if not find_server("mosquitto"):
        pytest.skip("there is no mosquitto here; `make servers` fetches it")
    broker = MqttBroker()
    try:
        broker.start()
        yield broker
    finally:
        broker.close()
