"""`init`, `token`, `backup` and `restore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from redline.access.tokens import ROLES, AuthError, append_token, mint_token
from redline.cli.command import UsageError, print_status
from redline.cli.run import SERVER_SETTINGS, STREAM_SETTINGS
from redline.settings import SETTINGS_BY_NAME, SETTINGS_TABLE, to_toml
from redline.storage import backup, sqlite
from streams import STREAMS


def init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        nargs="?",
        default="redline.toml",
        metavar="PATH",
        help="the settings file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--stream",
        default="wave",
        metavar="NAME",
        help="a simulated one, this-machine, or one you will push (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def run_init(args: argparse.Namespace) -> None:
    path = Path(args.path)
    if path.exists() and not args.force:
        raise UsageError(
            f"{path} is there already; choose another name, or write over it with --force"
        )
    path.write_text(commented_setting(args.stream), encoding="utf-8")
    print_status(f"wrote {path}; start it with `python -m redline run --config {path}`")


def commented_setting(name: str) -> str:
    """A settings file with every setting, its unit, its bounds and what it is for."""
    source: dict[str, Any] = {"stream": name, "first": 0} | (
        {"seed": 0, "rate": 0.01, "injections": []} if name in STREAMS else {}
    )
    head = "# Run it: python -m redline run --config FILE\n\n# Where the numbers come from: "
    head += 'a simulated stream, this-machine, csv = "file.csv", or a name that programs push to.\n'
    parts = [head + to_toml({"source": source})]
    for title, names in (("settings", STREAM_SETTINGS), ("server", SERVER_SETTINGS)):
        parts.append(f"[{title}]\n" + "".join(explain_setting(name) for name in names))
    return "\n".join(parts)


def explain_setting(name: str) -> str:
    """One setting as lines of a settings file; one without a default is commented out."""
    row = next(row for row in SETTINGS_TABLE if row.name == name)
    bounds = "" if row.low != row.low else f", {row.low:g} to {row.high:g}"
    value = (
        to_toml({"x": {row.name: row.default}}).partition("\n")[2]
        if row.default is not None
        else f'# {row.name} = ""\n'
    )
    return f"# {row.help}{f' ({row.unit})' if row.unit else ''}{bounds}\n{value}"


def token_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "role",
        choices=ROLES,
        help="read: look; push: submit points and labels too; operate: everything",
    )
    parser.add_argument("name", help="whose it is, for the audit log")
    parser.add_argument(
        "--file",
        default="redline.tokens",
        metavar="PATH",
        help="the token file, which keeps only its hash (default: %(default)s)",
    )


def run_token(args: argparse.Namespace) -> None:
    try:
        secret, kept = mint_token(args.role, args.name)
    except AuthError as error:
        raise UsageError(str(error)) from error
    append_token(Path(args.file), kept)
    print_status(f"added to {args.file}; this is the only time the token is shown:")
    print(secret)


def store_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the backup")
    parser.add_argument(
        "--db",
        default=SETTINGS_BY_NAME["db"].default,
        metavar="PATH",
        help="the store (default: %(default)s)",
    )


def run_backup(args: argparse.Namespace) -> None:
    opened = sqlite.SqliteStore(args.db, write=False)
    try:
        print_status(
            f"wrote {opened.backup(args.path)}, {Path(args.path).stat().st_size:,} "
            f"bytes; restore it with `python -m redline restore {args.path}`"
        )
    finally:
        opened.close()


def run_restore(args: argparse.Namespace) -> None:
    backup.restore_backup(args.path, args.db)
    print_status(f"{args.db} is {args.path} again; what was there before is {args.db}.before")
