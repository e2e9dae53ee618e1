"""logins: passwords are checked one at a time, so many may wait, and whoever is refused learns for how long."""

import asyncio
import threading

import pytest

from tests.station_access import PASSWORD, open_users
from totalrecall.errors import LoginError, SettingError, ThrottledError
from totalrecall.station.access.logins import Logins
from totalrecall.station.access.throttle import LoginThrottle
from totalrecall.station.store.records import ANYBODY, Actor

ANNA = Actor("anna", "engineer")


@pytest.fixture
def users(tmp_path):
    with open_users(tmp_path) as opened:
        opened.add("anna", "engineer", PASSWORD, ANYBODY)
        yield opened


def test_passwords_are_checked_one_at_a_time_and_a_bounded_number_waits(users):
    gate, running, most = threading.Event(), 0, 0

    def check():
        nonlocal running, most
        running += 1
        most = max(most, running)
        assert gate.wait(60)
        running -= 1

    async def flood():
        logins = Logins(users)
        jobs = [asyncio.create_task(logins.compute(check)) for _ in range(200)]
        refused = 0
        while refused < 184:  # those are refused at once, before any password was checked
            await asyncio.sleep(0.01)
            refused = sum(job.done() for job in jobs)
        with pytest.raises(ThrottledError, match="Try again in 5 s") as caught:
            await logins.compute(check)
        assert caught.value.seconds == 5
        gate.set()
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(one) for one in outcomes].count(ThrottledError) == 184
        assert outcomes.count(None) == 16
        await logins.compute(lambda: None)  # and there is room again

    asyncio.run(flood())
    assert most == 1


def test_a_check_that_fails_makes_room_for_the_next(users):
    async def fail():
        logins = Logins(users)
        for _ in range(40):
            with pytest.raises(ZeroDivisionError):
                await logins.compute(lambda: 1 // 0)

    asyncio.run(fail())


def test_names_that_are_one_user_are_counted_as_one(users):
    """Else each spelling would have attempts of its own."""

    async def guess():
        logins = Logins(users, LoginThrottle(lambda: 0.0))
        for name in ("anna", "ANNA", "ａｎｎａ", "Anna", "anna"):
            with pytest.raises(LoginError):
                await logins.log_in(name, "wrong", "10.0.0.1")
        for name in ("anna", "AnNa", "аnna"):  # the last one looks like it
            with pytest.raises(ThrottledError, match="Try again in 1 s") as caught:
                await logins.log_in(name, PASSWORD, "10.0.0.1")
            assert caught.value.seconds == 1
        assert (await logins.log_in("anna", PASSWORD, "10.0.0.2"))[0].actor == ANNA

    asyncio.run(guess())


def test_a_refused_login_is_written_down_with_the_address_of_its_client(users):
    with pytest.raises(LoginError):
        asyncio.run(Logins(users).log_in("anna", "wrong", "10.0.0.7"))
    (row,) = users.trail_rows()[:1]
    assert (row.action, row.subject, row.facts()) == ("login refused", "anna", {"address": "10.0.0.7"})


def test_a_password_is_changed_only_with_the_old_one(users):
    async def change():
        logins = Logins(users)
        with pytest.raises(LoginError, match="old password is wrong"):
            await logins.change_password(ANNA, "wrong", "other words of mine", "10.0.0.1")
        with pytest.raises(SettingError, match="10 to 256"):
            await logins.change_password(ANNA, PASSWORD, "short", "10.0.0.1")
        await logins.change_password(ANNA, PASSWORD, "other words of mine", "10.0.0.1")

    asyncio.run(change())
    assert users.log_in("anna", PASSWORD) is None
    assert users.log_in("anna", "other words of mine") is not None
