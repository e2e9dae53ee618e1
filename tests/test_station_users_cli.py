"""`totalrecall station users` and `tokens`: what they print, what they refuse, and that no password is an argument."""

import io
import json
import sys

import pytest

from tests.station_access import PASSWORD
from totalrecall.cli import main
from totalrecall.station.access.users import Users
from totalrecall.station.store.database import Database
from totalrecall.station.store.trail import Trail


@pytest.fixture
def station(tmp_path, monkeypatch, capsys):
    """Run an action on a station's folder; gives the exit code, stdout and stderr."""
    folder = tmp_path / "station"

    def run(*arguments, typed=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        code = main(["station", *arguments, "--folder", str(folder)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    run.folder = folder
    return run


def add(station, name, role, password=PASSWORD):
    return station("users", "add", name, "--role", role, "--password-stdin", typed=f"{password}\n")


def test_users_are_added_listed_changed_and_removed(station):
    code, out, _ = add(station, "Anna", "engineer")
    assert (code, out) == (0, "Added anna, engineer.\nFrom now on everybody must log in at this station.\n")
    assert add(station, "bert", "operator")[:2] == (0, "Added bert, operator.\n")
    assert station("users", "role", "bert", "auditor")[1] == "bert is auditor now.\n"
    assert station("users", "disable", "bert")[1] == "bert cannot log in any more.\n"
    listed = station("users", "list")[1]
    assert "anna" in listed
    assert "auditor" in listed
    assert "disabled" in listed
    assert station("users", "enable", "bert")[1] == "bert can log in again.\n"
    assert station("users", "remove", "bert")[1] == "Removed bert.\n"
    facts = json.loads(station("users", "list", "--json", "-")[1])
    assert [(user["name"], user["role"], user["disabled"]) for user in facts["users"]] == [("anna", "engineer", False)]
    assert set(facts["users"][0]) == {"name", "role", "disabled", "at"}


def test_a_password_that_was_set_lets_the_user_in(station):
    add(station, "anna", "engineer")
    code, out, _ = station("users", "password", "anna", "--password-stdin", typed="other words of mine\r\n")
    assert (code, out) == (0, "Changed the password of anna; the user's sessions have ended.\n")
    with Database(f"sqlite:///{station.folder / 'history.db'}") as database:
        users = Users(database, Trail(database))
        assert users.log_in("anna", "other words of mine") is not None
        assert users.log_in("anna", PASSWORD) is None
        actors = {row.actor for row in Trail(database).rows() if row.action.startswith("user ")}
    assert len(actors) == 1
    assert actors.pop().startswith("cli:")


@pytest.mark.parametrize(
    ("arguments", "typed", "code", "said"),
    [
        (
            ("users", "add", "bert", "--role", "operator", "--password-stdin"),
            "short\n",
            2,
            "password must have 10 to 256",
        ),
        (("users", "add", "an na", "--role", "operator", "--password-stdin"), PASSWORD, 2, "name of a user must begin"),
        (
            ("users", "add", "ANNA", "--role", "operator", "--password-stdin"),
            PASSWORD,
            1,
            "There is a user anna already",
        ),
        (("users", "add", "bert", "--role", "operator"), PASSWORD, 2, "must be typed at a terminal"),
        (("users", "remove", "anna"), "", 1, "anna is the last engineer who can log in and cannot be removed"),
        (("users", "disable", "anna"), "", 1, "anna is the last engineer"),
        (("users", "role", "anna", "operator"), "", 1, "anna is the last engineer"),
        (("users", "remove", "bert"), "", 1, "There is no user bert"),
        (("tokens", "revoke", "press"), "", 1, "No token in use is called 'press'"),
        (("tokens", "add", "press", "--days", "0"), "", 2, "--days must be over 0"),
    ],
)
def test_what_is_refused_is_said_in_one_line(station, arguments, typed, code, said):
    add(station, "anna", "engineer")
    got, out, err = station(*arguments, typed=typed)
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_no_option_takes_a_password(station, capsys):
    add(station, "anna", "engineer")
    with pytest.raises(SystemExit) as caught:
        station("users", "add", "bert", "--role", "operator", "--password", PASSWORD)
    assert caught.value.code == 2
    assert PASSWORD not in "".join(file.read_bytes().decode("latin-1") for file in station.folder.iterdir())


def test_a_password_is_typed_twice_at_a_terminal(station, monkeypatch):
    typed = iter([PASSWORD, PASSWORD, PASSWORD, "another one at all", "short"])
    asked = []

    def type_it(prompt):
        asked.append(prompt)
        return next(typed)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("getpass.getpass", type_it)
    monkeypatch.setattr("io.StringIO", Terminal)
    assert station("users", "add", "anna", "--role", "engineer")[0] == 0
    assert asked == ["New password of anna: ", "Once more: "]
    code, _, err = station("users", "password", "anna")
    assert (code, "The two passwords differ" in err) == (2, True)
    code, _, err = station("users", "password", "anna")
    assert (code, "10 to 256 characters, got 5" in err, len(asked)) == (2, True, 5)


def test_a_token_is_printed_once_alone_on_stdout(station):
    code, out, err = station("tokens", "add", "Press-3", "--days", "30")
    assert code == 0
    assert out.startswith("trecall_")
    assert out.count("\n") == 1
    assert "of press-3, machine. It ends on " in err
    assert out.strip() not in err
    listed = station("tokens", "list")[1]
    assert "press-3" in listed
    assert out.strip() not in listed
    facts = json.loads(station("tokens", "list", "--json", "-")[1])["tokens"][0]
    assert set(facts) == {"id", "name", "role", "at", "expires_at", "revoked_at", "last_used_at"}
    assert out.strip() not in str(facts)
    assert station("tokens", "revoke", facts["id"])[1] == f"Revoked the token {facts['id']} of press-3.\n"
    assert json.loads(station("tokens", "list", "--json", "-")[1])["tokens"][0]["revoked_at"] is not None


def test_without_users_or_tokens_the_lists_say_what_that_means(station):
    station("tokens", "add", "press")
    assert station("users", "list")[1] == "There are no users: whoever reaches the station may do everything.\n"
    add(station, "anna", "engineer")
    station("tokens", "revoke", "press")
    assert "press" in station("tokens", "list")[1]


def test_a_list_makes_no_station(station):
    code, out, err = station("users", "list")
    assert (code, out) == (1, "")
    assert "There is no history" in err
    assert not station.folder.exists()
