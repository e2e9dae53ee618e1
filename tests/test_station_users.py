"""users: names, passwords, sessions and tokens; nobody gets in who should not, and every change is written down."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from tests.station_access import PASSWORD, open_users, with_roles
from totalrecall.errors import ConflictError, NotFoundError, SettingError
from totalrecall.station.access import sessions, tokens
from totalrecall.station.access.passwords import PasswordHasher
from totalrecall.station.access.user_names import look, normal_name
from totalrecall.station.store import tables
from totalrecall.station.store.records import ANYBODY, Actor

ADMIN = Actor("anna", "engineer")


@pytest.fixture
def anna(users):
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    return users


def rows(users, table):
    with users._database.read() as connection:
        return connection.execute(select(table)).all()


def move_back(users, table, by, *columns):
    """Make rows older, as if time had passed."""
    for row in rows(users, table):
        key = next(iter(table.primary_key))
        values = {name: getattr(row, name) - by for name in columns if getattr(row, name) is not None}
        if not values:
            continue
        change = update(table).where(key == getattr(row, key.name)).values(**values)
        users._database.write(lambda connection, change=change: connection.execute(change).rowcount).result()


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("Anna", "anna"),
        ("ANNA.Schmidt-2", "anna.schmidt-2"),
        ("Ａｎｎａ", "anna"),  # full-width letters
        ("ﬁona", "fiona"),  # a ligature
        ("Jürgen", "jürgen"),
        ("Ju\u0308rgen", "jürgen"),  # the dots apart
        ("王伟", "王伟"),
        ("やまだ花子", "やまだ花子"),
        ("Ольга", "ольга"),
    ],
)
def test_a_name_has_one_spelling(typed, normal):
    assert normal_name(typed) == normal
    assert normal_name(normal) == normal


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "anna ",
        "an na",
        ".anna",
        "-anna",
        "an/na",
        "an:na",
        "an<na",
        "аnna",  # a Cyrillic a
        "annа",
        "αnna",
        "an\u200bna",  # a space of no width
        "an\u202ena",
        "an\x00na",
        "an\nna",
        "a" * 65,
        "a" * 10**6,
        "ﷺ" * 40,  # each becomes 18 letters
        "local",
        "STATION",
        "token",
        "anna\u0301\u0301\u0301\u0301",
        "anna²x½",
        "аnnа👍",
    ],
)
def test_a_name_that_misleads_is_refused(typed):
    with pytest.raises(SettingError, match="name"):
        normal_name(typed)


def test_the_message_of_a_long_name_is_short():
    with pytest.raises(SettingError) as caught:
        normal_name("<" * 60)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("first", "second"),
    [("ace", "асе"), ("paul1", "paull"), ("b0b", "bob"), ("modern", "modem"), ("ivvan", "iwan"), ("нора", "hopa")],
)
def test_two_names_that_look_alike_are_known_as_such(first, second):
    assert look(first) == look(second)


def test_no_user_gets_a_name_that_looks_like_anothers(anna):
    anna.add("ace", "operator", PASSWORD, ADMIN)
    with pytest.raises(ConflictError, match="looks like that of the user 'ace'"):
        anna.add("асе", "operator", PASSWORD, ADMIN)
    with pytest.raises(ConflictError, match="There is a user anna already"):
        anna.add("ANNA", "operator", PASSWORD, ADMIN)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "10 to 256 characters, got 5"),
        ("x" * 257, "10 to 256 characters, got 257"),
        ("x" * 10**6, "10 to 256 characters, got 1000000"),
        ("aaaaaaaaaaaa", "easily guessed"),
        ("ababababababab", "easily guessed"),
        ("Password1234", "easily guessed"),
        ("anna is my name", "easily guessed"),
        ("1234567890", "easily guessed"),
    ],
)
def test_a_bad_password_is_refused_and_not_repeated(users, password, why):
    with pytest.raises(SettingError, match=why) as caught:
        users.add("anna", "engineer", password, ANYBODY)
    assert password not in str(caught.value)
    assert not users.any()


def test_passwords_are_kept_as_argon2id_hashes_of_64_mebibytes(tmp_path, users):
    hashed = PasswordHasher().hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert PasswordHasher().verify(hashed, PASSWORD)
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    assert rows(users, tables.users)[0].password.startswith("$argon2id$")
    assert PASSWORD.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_password_typed_on_another_keyboard_is_the_same(anna):
    anna.set_password("anna", "gru\u0308ne Wa\u0308lder 7", ADMIN)
    assert anna.log_in("anna", "grüne Wälder 7") is not None


def test_a_password_of_a_megabyte_is_wrong_without_a_computation(users):
    hasher = PasswordHasher(memory_kib=8, passes=1)
    hashed = hasher.hash(PASSWORD)
    hasher._hasher = None  # would fail
    assert not hasher.verify(hashed, "x" * 10**6)


def test_as_much_is_computed_for_a_user_that_is_not_there(anna, monkeypatch):
    hasher, verified = anna._hasher, []
    inner = hasher._hasher
    anna.add("bert", "operator", PASSWORD, ADMIN)
    anna.set_disabled("bert", True, ADMIN)

    class Counting:
        def verify(self, hashed, password):
            verified.append(hashed.split("$")[1:4])
            return inner.verify(hashed, password)

        def __getattr__(self, name):
            return getattr(inner, name)

    monkeypatch.setattr(hasher, "_hasher", Counting())
    for name in ("anna", "bert", "carl", "no name at all", ""):
        assert anna.log_in(name, "a wrong password") is None
    assert len(verified) == 5
    assert len({tuple(one) for one in verified}) == 1


def test_the_first_user_must_be_an_engineer(users):
    with pytest.raises(SettingError, match="first user must be an engineer"):
        users.add("bert", "operator", PASSWORD, ANYBODY)
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    users.add("bert", "operator", PASSWORD, ADMIN)
    assert [(user.name, user.role, user.disabled) for user in users.list()] == [
        ("anna", "engineer", False),
        ("bert", "operator", False),
    ]


@pytest.mark.parametrize("role", ["machine", "Engineer", "", "root", "anyone"])
def test_a_user_has_a_role_of_people(anna, role):
    with pytest.raises(SettingError, match="role must be one of operator, engineer, auditor"):
        anna.add("bert", role, PASSWORD, ADMIN)
    with pytest.raises(SettingError, match="role must be one of operator, engineer, auditor"):
        anna.set_role("anna", role, ADMIN)


def test_the_last_engineer_stays(anna):
    anna.add("bert", "engineer", PASSWORD, ADMIN)
    anna.set_disabled("bert", True, ADMIN)  # one who cannot log in does not count
    for change in (
        lambda: anna.remove("anna", ADMIN),
        lambda: anna.set_role("anna", "operator", ADMIN),
        lambda: anna.set_disabled("anna", True, ADMIN),
    ):
        with pytest.raises(ConflictError, match="anna is the last engineer who can log in"):
            change()
    anna.set_disabled("bert", False, ADMIN)
    anna.set_role("anna", "operator", ADMIN)
    with pytest.raises(ConflictError, match="bert is the last engineer"):
        anna.remove("bert", ADMIN)
    anna.remove("anna", ADMIN)
    assert [user.name for user in anna.list()] == ["bert"]


@pytest.mark.parametrize("change", ["remove", "set_disabled", "set_role"])
def test_two_processes_cannot_remove_each_others_last_engineer(address, change):
    more = {"remove": (), "set_disabled": (True,), "set_role": ("auditor",)}[change]
    with open_users(address) as first, open_users(address) as second, ThreadPoolExecutor(2) as pool:
        first.add("anna", "engineer", PASSWORD, ANYBODY)
        for number in range(8):
            first.add(f"bert{number}x", "engineer", PASSWORD, ADMIN)
            begun = [first.log_in("anna", PASSWORD), second.log_in(f"bert{number}x", PASSWORD)]
            assert None not in begun
            tries = [
                pool.submit(getattr(first, change), f"bert{number}x", *more, ADMIN),
                pool.submit(getattr(second, change), "anna", *more, ADMIN),
            ]
            errors = [str(one.exception()) for one in tries if one.exception() is not None]
            assert len(errors) == 1
            assert "is the last engineer who can log in" in errors[0]
            able = [user for user in first.list() if user.role == "engineer" and not user.disabled]
            assert len(able) == 1
            if able[0].name != "anna":  # for the next round
                if change == "remove":
                    first.add("anna", "engineer", PASSWORD, ADMIN)
                else:
                    first.set_disabled("anna", False, ADMIN)
                    first.set_role("anna", "engineer", ADMIN)
                getattr(first, change)(able[0].name, *more, ADMIN)


def test_changes_and_logins_of_two_processes_wait_for_each_other_and_none_fails(address):
    """On PostgreSQL two transactions that wait for each other's rows would both fail."""
    with open_users(address) as first, open_users(address) as second, ThreadPoolExecutor(4) as pool:
        with_roles(first)
        first.tokens.add("press", ADMIN)

        def work(users, seed):
            for number in range(15):
                begun = users.log_in("operators-name", PASSWORD)
                if number % 3 == seed:
                    users.set_role("operators-name", ("auditor", "operator")[number % 2], ADMIN)
                if begun is not None:
                    users.sessions.of_secret(begun[1])
                    users.log_out(begun[0])

        jobs = [pool.submit(work, users, seed) for seed, users in enumerate((first, second, first, second))]
        assert [job.exception() for job in jobs] == [None] * 4
        assert first.trail_verified().is_whole


@pytest.mark.parametrize("change", ["remove", "set_role", "set_disabled", "set_password"])
def test_a_user_who_is_not_there_cannot_be_changed(anna, change):
    more = {"remove": (), "set_role": ("operator",), "set_disabled": (True,), "set_password": (PASSWORD,)}[change]
    with pytest.raises(NotFoundError, match="There is no user bert"):
        getattr(anna, change)("bert", *more, ADMIN)


def test_a_session_is_found_by_its_secret_which_is_not_stored(tmp_path, anna):
    session, secret = anna.log_in("Anna", PASSWORD)
    assert session.actor == Actor("anna", "engineer")
    assert len(secret) == 43
    found = anna.sessions.of_secret(secret)
    assert (found.actor, found.csrf) == (session.actor, session.csrf)
    assert secret not in str(rows(anna, tables.sessions))
    assert session.csrf not in (secret, rows(anna, tables.sessions)[0].digest)
    for wrong in ("", "x" * 43, secret[:-1], secret + "x", secret.swapcase(), session.csrf, "\udcff" * 43):
        assert anna.sessions.of_secret(wrong) is None


def test_a_session_gets_a_new_secret_at_each_login_and_the_old_one_ends(anna):
    _, first = anna.log_in("anna", PASSWORD)
    _, second = anna.log_in("anna", PASSWORD, instead_of=first)
    assert first != second
    assert anna.sessions.of_secret(first) is None
    _, third = anna.log_in("anna", PASSWORD, instead_of="planted" + "x" * 36)
    assert third != "planted" + "x" * 36
    assert anna.sessions.of_secret(second) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda users: users.set_disabled("bert", True, ADMIN),
        lambda users: users.set_role("bert", "auditor", ADMIN),
        lambda users: users.set_password("bert", "another " + PASSWORD, ADMIN),
        lambda users: users.remove("bert", ADMIN),
    ],
)
def test_a_change_of_a_user_ends_all_sessions_of_the_user_at_once(anna, change):
    anna.add("bert", "operator", PASSWORD, ADMIN)
    mine = anna.log_in("anna", PASSWORD)[1]
    secrets = [anna.log_in("bert", PASSWORD)[1] for _ in range(3)]
    change(anna)
    assert [anna.sessions.of_secret(secret) for secret in secrets] == [None] * 3
    assert anna.sessions.of_secret(mine) is not None


def test_a_session_ends_after_a_shift_without_a_request(anna):
    _, secret = anna.log_in("anna", PASSWORD)
    move_back(anna, tables.sessions, sessions.IDLE - timedelta(minutes=5), "seen_at")
    assert anna.sessions.of_secret(secret) is not None  # and this request counts
    anna._database.write(lambda _: None).result()
    move_back(anna, tables.sessions, sessions.IDLE - timedelta(minutes=5), "seen_at")
    assert anna.sessions.of_secret(secret) is not None
    anna._database.write(lambda _: None).result()
    move_back(anna, tables.sessions, sessions.IDLE + timedelta(seconds=1), "seen_at")
    assert anna.sessions.of_secret(secret) is None


@pytest.mark.parametrize("column", ["at", "seen_at"])
def test_a_session_of_a_clock_that_was_set_back_has_ended(anna, column):
    _, secret = anna.log_in("anna", PASSWORD)
    move_back(anna, tables.sessions, timedelta(minutes=-4), column)
    assert anna.sessions.of_secret(secret) is not None
    move_back(anna, tables.sessions, timedelta(days=-1), column)
    assert anna.sessions.of_secret(secret) is None


def test_a_session_ends_after_a_day_whatever_was_done(anna):
    _, secret = anna.log_in("anna", PASSWORD)
    move_back(anna, tables.sessions, sessions.LONGEST + timedelta(seconds=1), "expires_at")
    assert anna.sessions.of_secret(secret) is None
    anna.log_in("anna", PASSWORD)
    assert len(rows(anna, tables.sessions)) == 1  # what has ended is swept away


def test_a_user_has_a_bounded_number_of_sessions(anna):
    secrets = [anna.log_in("anna", PASSWORD)[1] for _ in range(25)]
    assert len(rows(anna, tables.sessions)) == 20
    assert anna.sessions.of_secret(secrets[-1]) is not None


def test_no_session_begins_for_a_password_that_was_changed_meanwhile(anna):
    before = rows(anna, tables.users)[0].password
    anna.set_password("anna", "another " + PASSWORD, ADMIN)
    assert anna.sessions.begin("anna", before) is None


def test_a_hash_of_older_settings_is_renewed_at_login(anna):
    before = rows(anna, tables.users)[0].password
    anna._hasher = PasswordHasher(memory_kib=16, passes=1)
    _, secret = anna.log_in("anna", PASSWORD)
    assert rows(anna, tables.users)[0].password != before
    assert anna.sessions.of_secret(secret) is not None
    assert anna.log_in("anna", PASSWORD) is not None


def test_a_token_is_shown_once_and_stored_as_a_digest(tmp_path, users):
    token, secret = users.tokens.add("Press-3", ADMIN)
    assert secret.startswith("trecall_")
    assert len(secret) == 51
    assert (token.name, token.role, token.actor) == ("press-3", "machine", Actor("token:press-3", "machine"))
    assert users.tokens.of_secret(secret).key == token.key
    assert secret.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret not in str(users.trail_rows())
    for wrong in ("", "trecall_", secret[:-1], secret + "x", secret.removeprefix("trecall_"), "trecall_" + "x" * 10**6):
        assert users.tokens.of_secret(wrong) is None


def test_a_revoked_or_expired_token_does_not_work(users):
    first, secret = users.tokens.add("press", ADMIN)
    with pytest.raises(ConflictError, match="A token in use has the name press"):
        users.tokens.add("PRESS", ADMIN)
    users.tokens.revoke(first.key, ADMIN)
    assert users.tokens.of_secret(secret) is None
    assert not users.tokens.any()
    with pytest.raises(NotFoundError, match="No token in use is called"):
        users.tokens.revoke(first.key, ADMIN)
    _, secret = users.tokens.add("press", ADMIN, days=1)
    assert users.tokens.of_secret(secret) is not None
    assert users.tokens.any()
    move_back(users, tables.tokens, timedelta(days=1, seconds=1), "expires_at")
    assert users.tokens.of_secret(secret) is None
    assert users.tokens.revoke("press", ADMIN).name == "press"  # by name, too


@pytest.mark.parametrize(
    ("changes", "why"), [({"role": "root"}, "role"), ({"days": 0}, "days"), ({"days": float("nan")}, "days")]
)
def test_a_token_with_a_wrong_role_or_time_is_refused(users, changes, why):
    with pytest.raises(SettingError, match=f"{why} must be"):
        users.tokens.add("press", ADMIN, **changes)


def test_the_last_use_of_a_token_is_noted_once_a_minute(users):
    _, secret = users.tokens.add("press", ADMIN)
    users.tokens.of_secret(secret)
    users._database.write(lambda _: None).result()
    first = users.tokens.list()[0].last_used_at
    assert first is not None
    users.tokens.of_secret(secret)
    users._database.write(lambda _: None).result()
    assert users.tokens.list()[0].last_used_at == first
    move_back(users, tables.tokens, tokens._USED_EVERY * 2, "last_used_at")
    users.tokens.of_secret(secret)
    users._database.write(lambda _: None).result()
    assert users.tokens.list()[0].last_used_at > first - tokens._USED_EVERY


def test_every_change_is_in_the_trail_with_who_made_it(anna):
    anna.add("bert", "operator", PASSWORD, ADMIN)
    anna.set_role("bert", "auditor", ADMIN)
    anna.set_role("bert", "auditor", ADMIN)  # nothing changes
    anna.set_password("bert", "another " + PASSWORD, Actor("bert", "auditor"))
    anna.set_disabled("bert", True, ADMIN)
    anna.set_disabled("bert", False, ADMIN)
    session, _ = anna.log_in("bert", "another " + PASSWORD)
    anna.log_out(session)
    anna.remove("bert", ADMIN)
    anna.tokens.add("press", ADMIN)
    anna.tokens.revoke("press", ADMIN)
    told = [(row.actor, row.action, row.subject) for row in reversed(anna.trail_rows()) if row.action != "begin"]
    assert told == [
        ("local", "user added", "anna"),
        ("anna", "user added", "bert"),
        ("anna", "user role changed", "bert"),
        ("bert", "user password changed", "bert"),
        ("anna", "user disabled", "bert"),
        ("anna", "user enabled", "bert"),
        ("bert", "login", "bert"),
        ("bert", "logout", "bert"),
        ("anna", "user removed", "bert"),
        ("anna", "token added", "press"),
        ("anna", "token revoked", "press"),
    ]
    assert "argon2" not in str(anna.trail_rows())


def test_a_refused_change_leaves_no_row_in_the_trail(anna):
    before = anna.trail_rows()
    with pytest.raises(ConflictError):
        anna.remove("anna", ADMIN)
    assert anna.trail_rows() == before


def test_a_password_typed_as_a_name_is_not_written_down(anna):
    anna.log_in("secret words of anna", "anna")
    anna.log_in("anna", "wrong password")
    newest = anna.trail_rows()[:2]
    assert [(row.actor, row.action, row.subject) for row in newest] == [
        ("station", "login refused", "anna"),
        ("station", "login refused", "an unknown user"),
    ]
