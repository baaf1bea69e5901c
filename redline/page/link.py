"""The link to a view: the settings that the query of its address names."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from redline.engine.monitor import Monitor
from redline.page.layout import DEFAULT_SPAN, TAB_TITLES, VIEW_SPANS, WHOLE_SPAN
from redline.page.preview import preview_fields, previewed_settings
from redline.settings import Settings, SettingsError
from redline.sources.pushed import ALL_STREAMS, FLEET, YOUR_DATA

DEFAULT_DOMAIN = "wave"


def settings_from_link(monitor: Monitor, search: str) -> dict[str, Any]:
    """Return the values of the controls that a link names.

    A value that is not valid keeps the applied settings; the answer then says so under `acted`.

    Args:
        search: the query of the address, "?domain=iot&window=60".
    """
    asked = {key: values[0] for key, values in parse_qs(search.lstrip("?")).items()}
    domain = asked.get("domain", DEFAULT_DOMAIN)
    feed = monitor.find_feed(domain)
    if domain not in (*TAB_TITLES, ALL_STREAMS, FLEET) and feed is None:
        return {"acted": f"the link names a stream {domain!r} that is not here"}
    base = feed.applied if feed else Settings()
    try:
        settings = previewed_settings(base, {**preview_fields(base), **asked})
        span = int(asked.get("range", WHOLE_SPAN if domain == YOUR_DATA else DEFAULT_SPAN))
    except (ValueError, SettingsError) as error:
        acted = {"acted": f"the link could not be followed whole: {error}"}
        return {"domain": domain, "shown": domain, **preview_fields(base), **acted}
    return {
        "domain": domain,
        "shown": domain,
        **preview_fields(settings),
        "range": min(VIEW_SPANS, key=lambda listed: abs(listed - span)),
    }
