"""`totalrecall station users` and `totalrecall station tokens`: who may use a station."""

import argparse
import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from totalrecall.cli.common import check_target, emit, print_table, write_json
from totalrecall.cli.paths import OUTPUT
from totalrecall.cli.station_options import add_database_options, open_database
from totalrecall.errors import SettingError

if TYPE_CHECKING:
    from totalrecall.station.access.tokens import Token
    from totalrecall.station.access.users import Users
    from totalrecall.station.store.records import Actor

__all__ = ["add_parsers"]

_USER_ROLES = ("operator", "engineer", "auditor")
_TOKEN_ROLES = ("machine", *_USER_ROLES)


def add_parsers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `users` and `tokens`, each with its own actions."""
    _add_users(actions)
    _add_tokens(actions)


def _add_users(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "users",
        help="add, list and change the people who may use a station",
        description="The people who may use a station. From the first user on everybody must log in. The station may "
        "run meanwhile: a change is in force at once.",
    )
    users = parser.add_subparsers(dest="users_action", metavar="ACTION", required=True)
    adding = _action(
        users, "add", "add a user", "Add a user; the password is asked for, or read with --password-stdin."
    )
    _add_name(adding)
    adding.add_argument("--role", choices=_USER_ROLES, required=True, help="the first user must be an engineer")
    _add_password(adding)
    adding.set_defaults(run=run_add)
    listing = _action(users, "list", "list the users", "List the users.")
    _add_json(listing)
    listing.set_defaults(run=run_list)
    changing = _action(users, "role", "change a user's role", "Change a user's role; the user's sessions end.")
    _add_name(changing)
    changing.add_argument("role", metavar="ROLE", choices=_USER_ROLES, help="operator, engineer or auditor")
    changing.set_defaults(run=run_role)
    password = _action(users, "password", "change a user's password", "Change a password; the user's sessions end.")
    _add_name(password)
    _add_password(password)
    password.set_defaults(run=run_password)
    for name, defaults, what in (
        ("disable", {"run": run_disable, "disabled": True}, "keep a user from logging in; the user's sessions end"),
        ("enable", {"run": run_disable, "disabled": False}, "let a user log in again"),
        ("remove", {"run": run_remove}, "remove a user; the user's sessions end"),
    ):
        action = _action(users, name, what.partition(";")[0], f"{what[0].upper()}{what[1:]}.")
        _add_name(action)
        action.set_defaults(**defaults)


def _add_tokens(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "tokens",
        help="add, list and revoke the tokens by which machines call a station",
        description="Tokens by which machines call a station: the header Authorization: Bearer TOKEN.",
    )
    tokens = parser.add_subparsers(dest="tokens_action", metavar="ACTION", required=True)
    adding = _action(tokens, "add", "make a token", "Make a token and print it. It cannot be shown again.")
    _add_name(adding, "of the machine that gets it")
    adding.add_argument("--role", choices=_TOKEN_ROLES, default="machine", help="what it may do (default: %(default)s)")
    adding.add_argument("--days", type=float, metavar="N", help="until it ends (default: until it is revoked)")
    adding.set_defaults(run=run_add_token)
    listing = _action(tokens, "list", "list the tokens", "List the tokens, without their secrets.")
    _add_json(listing)
    listing.set_defaults(run=run_list_tokens)
    revoking = _action(tokens, "revoke", "end a token", "End a token at once.")
    revoking.add_argument("token", metavar="NAME", help="its id or its name, not the secret")
    revoking.set_defaults(run=run_revoke)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, short: str, description: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=short, description=description)
    add_database_options(parser)
    return parser


def _add_name(parser: argparse.ArgumentParser, what: str = "of the user") -> None:
    parser.add_argument("name", metavar="NAME", help=what)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", type=OUTPUT, help="write the list as JSON ('-' for stdout)")


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from the first line of stdin; an argument would be seen by everybody on the computer",
    )


@contextmanager
def _users(args: argparse.Namespace, *, create: bool = False) -> "Iterator[Users]":
    with open_database(args, create=create) as database:
        from totalrecall.station.access.users import Users
        from totalrecall.station.store.trail import Trail

        yield Users(database, Trail(database))


def _person() -> "Actor":
    """Return who types, for the trail: whoever may write the database may do everything."""
    from totalrecall.station.store.records import Actor

    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return Actor(f"cli:{name}", "engineer")


def _password(args: argparse.Namespace, name: str) -> str:
    """Read a new password.

    Raises:
        SettingError: there is nobody to ask, or two different ones were typed.
    """
    from totalrecall.station.access.passwords import check_password_rules
    from totalrecall.station.access.user_names import normal_name

    if args.password_stdin:
        line = sys.stdin.readline(4096)
        return line.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise SettingError("A password must be typed at a terminal, or be the first line of stdin: --password-stdin.")
    password = getpass.getpass(f"New password of {name}: ")
    check_password_rules(password, normal_name(name))  # before it is typed again
    if getpass.getpass("Once more: ") != password:
        raise SettingError("The two passwords differ. Nothing was changed.")
    return password


def run_add(args: argparse.Namespace) -> int:
    """Add a user."""
    password = _password(args, args.name)
    with _users(args, create=True) as users:
        is_first = not users.any()
        user = users.add(args.name, args.role, password, _person())
    emit(f"Added {user.name}, {user.role}.")
    if is_first:
        emit("From now on everybody must log in at this station.")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print the users."""
    from totalrecall.station.store.records import iso

    check_target("--json", args.json)
    with _users(args) as users:
        found = users.list()
    if args.json:
        rows = [{"name": one.name, "role": one.role, "disabled": one.disabled, "at": iso(one.at)} for one in found]
        write_json(args.json, {"users": rows})
        if args.json == "-":
            return 0
    if not found:
        emit("There are no users: whoever reaches the station may do everything.")
        return 0
    _print(
        ("name", "role", "added", ""),
        [(one.name, one.role, iso(one.at)[:10], "disabled" if one.disabled else "") for one in found],
    )
    return 0


def run_role(args: argparse.Namespace) -> int:
    """Change a user's role."""
    with _users(args) as users:
        user = users.set_role(args.name, args.role, _person())
    emit(f"{user.name} is {user.role} now.")
    return 0


def run_password(args: argparse.Namespace) -> int:
    """Change a user's password."""
    password = _password(args, args.name)
    with _users(args) as users:
        user = users.set_password(args.name, password, _person())
    emit(f"Changed the password of {user.name}; the user's sessions have ended.")
    return 0


def run_disable(args: argparse.Namespace) -> int:
    """Keep a user from logging in, or let the user log in again."""
    with _users(args) as users:
        user = users.set_disabled(args.name, args.disabled, _person())
    emit(f"{user.name} cannot log in any more." if user.disabled else f"{user.name} can log in again.")
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """Remove a user."""
    with _users(args) as users:
        users.remove(args.name, _person())
    emit(f"Removed {args.name}.")
    return 0


def run_add_token(args: argparse.Namespace) -> int:
    """Make a token and print it."""
    with _users(args, create=True) as users:
        token, secret = users.tokens.add(args.name, _person(), role=args.role, days=args.days)
    emit(secret)
    ends = "" if token.expires_at is None else f" It ends on {token.expires_at:%Y-%m-%d}."
    print(f"Token {token.key} of {token.name}, {token.role}.{ends} It is not shown again.", file=sys.stderr)
    return 0


def run_list_tokens(args: argparse.Namespace) -> int:
    """Print the tokens."""
    check_target("--json", args.json)
    with _users(args) as users:
        found = users.tokens.list()
    if args.json:
        write_json(args.json, {"tokens": [_facts(token) for token in found]})
        if args.json == "-":
            return 0
    if not found:
        emit("There are no tokens.")
        return 0
    rows = []
    for token in found:
        facts = {name: str(value)[:10] if value else "" for name, value in _facts(token).items()}
        rows.append((token.key, token.name, token.role, *(facts[name] for name in _TIMES)))
    _print(("id", "name", "role", "made", "ends", "revoked", "last used"), rows)
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """End a token."""
    with _users(args) as users:
        token = users.tokens.revoke(args.token, _person())
    emit(f"Revoked the token {token.key} of {token.name}.")
    return 0


_TIMES = ("at", "expires_at", "revoked_at", "last_used_at")


def _facts(token: "Token") -> dict[str, str | None]:
    from totalrecall.station.store.records import iso

    times = (token.at, token.expires_at, token.revoked_at, token.last_used_at)
    facts: dict[str, str | None] = {"id": token.key, "name": token.name, "role": token.role}
    return facts | {name: None if time is None else iso(time) for name, time in zip(_TIMES, times, strict=True)}


def _print(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_table(table)
