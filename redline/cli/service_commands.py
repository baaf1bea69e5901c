"""The commands of a service, by name."""

from __future__ import annotations

from redline.cli.admin import (
    init_arguments,
    run_backup,
    run_init,
    run_restore,
    run_token,
    store_arguments,
    token_arguments,
)
from redline.cli.client import (
    anomalies_arguments,
    run_anomalies,
    run_status,
    run_streams,
    status_arguments,
)
from redline.cli.command import Command
from redline.cli.run import replay_arguments, run_arguments, run_replay, run_run

SERVICE_COMMANDS = {
    "run": Command(run_run, "run what Export on the page wrote, without the page", run_arguments),
    "replay": Command(
        run_replay, "send a file through the settings of a stream, at full speed", replay_arguments
    ),
    "status": Command(run_status, "say what a running server does", status_arguments),
    "streams": Command(run_streams, "list the streams of a running server", status_arguments),
    "anomalies": Command(
        run_anomalies, "list, or follow, what a running server found", anomalies_arguments
    ),
    "init": Command(run_init, "write a commented settings file", init_arguments),
    "token": Command(run_token, "make a token for the API", token_arguments),
    "backup": Command(run_backup, "copy the store while it is in use", store_arguments),
    "restore": Command(run_restore, "put a backup in the place of the store", store_arguments),
}
