"""The page on who may use a station says what the program does: its table, its limits, its options."""

import re
import runpy
from pathlib import Path

from totalrecall.cli import build_parser
from totalrecall.station.access import (
    connections,
    guard,
    guard_body,
    guard_head,
    logins,
    passwords,
    policy,
    sessions,
    throttle,
)
from totalrecall.station.access.permissions import ANYONE, PERMISSIONS
from totalrecall.station.access.user_names import LONGEST_NAME
from totalrecall.station.store.records import ROLES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "reference" / "station-access.md").read_text(encoding="utf-8")


def told(text):
    """Whether the page says it, wherever its lines break."""
    return text in " ".join(PAGE.split())


def test_the_table_is_the_one_that_is_enforced():
    rows = re.findall(r"^\| `(GET|POST|PATCH|DELETE|PUT) ([^`]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(PERMISSIONS) > 30
    for method, path, cells in rows:
        said = dict(zip(ROLES, (cell.strip() for cell in cells.split("|")), strict=True))
        roles = PERMISSIONS[method, path.replace("{path}", "{path:path}")]
        word = "anybody" if ANYONE in roles else "yes"
        assert said == {role: word if role in roles else "" for role in ROLES}


def test_the_table_is_made_by_the_generator():
    assert runpy.run_path(str(DOCS / "generate.py"))["station_access"]() == PAGE, "run: python docs/generate.py"


def test_the_limits_are_those_of_the_program():
    limits = policy.Policy()
    assert told(f"1 to {LONGEST_NAME} of them")
    assert told(f"{passwords.SHORTEST_PASSWORD} to {passwords.LONGEST_PASSWORD} characters, at least 5 different")
    assert (passwords._FEWEST_LETTERS, passwords._MEMORY_KIB, passwords._PASSES) == (5, 64 << 10, 3)
    assert told("(64 MiB, 3 passes)")
    assert sessions.IDLE.total_seconds() == 8 * 3600
    assert sessions.LONGEST.total_seconds() == 24 * 3600
    assert sessions._MOST == 20
    assert told("ends after 8 hours without a request, after 24 hours in any case")
    assert told("has at most 20")
    assert throttle._FREE == {"pair": 5, "user": 20, "network": 20}
    assert all(map(told, ("has 5 attempts", "after 20 failures at one user", "after 20 from one address")))
    assert throttle._LONGEST_WAIT == 15 * 60
    assert told("up to 15 minutes")
    assert throttle._FORGET == 3600
    assert told("forgotten after an hour")
    assert told(f"if {logins._WAITING} wait, the next gets 429")
    assert told(f"headers of over {policy.MAX_HEADER_BYTES >> 10} KiB, or over {guard_head._MOST_HEADERS} |")
    assert told(f"over {limits.max_form >> 10} KiB from somebody who has not logged in")
    assert told(f"a second for each {limits.slowest >> 10} KiB")
    assert guard._BELIEVED == 0.5
    assert told("within half a second")
    assert guard_body._TOGETHER == 8
    assert told("over eight times `--max-body` at the same time")
    assert told(f"not there {connections.HEAD_SECONDS:.0f} s after")
    assert told(f"does not read for {connections.READ_SECONDS:.0f} s")
    assert told(f"over {policy._CONNECTIONS} connections")


def test_the_commands_of_the_page_are_commands():
    lines = re.findall(r"^\$ totalrecall (.*)$", PAGE, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        assert build_parser().parse_args(line.split()).run


def test_the_fields_of_the_lists_are_in_the_docs():
    """`test_station_users_cli.py` says that the commands write these."""
    page = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    section = page.partition("\n## station users list, station tokens list\n")[2].partition("\n## ")[0]
    told = {word.rpartition(".")[2] for word in re.findall(r"`([\w.\[\]]+)`", section)}
    assert told == {"name", "role", "disabled", "at", "id", "expires_at", "revoked_at", "last_used_at", "null"}
