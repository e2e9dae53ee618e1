"""throttle: guessing a password takes ever longer; nobody is locked out by somebody else; memory is bounded."""

import pytest

from totalrecall.station.access.throttle import LoginThrottle, network_of


class Clock:
    """Seconds that a test moves."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    return LoginThrottle(clock)


def attempts(throttle, clock, seconds, user, address):
    """Try without rest for so long, and return how many attempts were let in."""
    end, let_in = clock.now + seconds, 0
    while clock.now < end:
        wait = throttle.admit(user, address)
        let_in += wait == 0
        clock.now += max(wait, 0.001)
    return let_in


def test_five_failures_cost_nothing_and_each_further_one_twice_as_long(throttle, clock):
    assert [throttle.admit("anna", "10.0.0.1") for _ in range(5)] == [0] * 5
    waits = []
    for _ in range(12):
        waits.append(round(throttle.admit("anna", "10.0.0.1")))
        clock.now += waits[-1]
        assert throttle.admit("anna", "10.0.0.1") == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_a_day_of_guessing_at_one_user_lets_in_about_a_hundred(throttle, clock):
    assert attempts(throttle, clock, 86400, "anna", "10.0.0.1") < 120


def test_one_address_cannot_try_many_users(throttle, clock):
    users = iter(range(10**9))
    end, let_in = clock.now + 3600, 0
    while clock.now < end:
        wait = throttle.admit(f"user{next(users)}", "10.0.0.1")
        let_in += wait == 0
        clock.now += max(wait, 0.001)
    assert let_in < 40


def test_many_addresses_cannot_try_one_user(throttle, clock):
    numbers = iter(range(10**9))
    end, let_in = clock.now + 3600, 0
    while clock.now < end:
        number = next(numbers)
        wait = throttle.admit("anna", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
        let_in += wait == 0
        clock.now += max(wait, 0.001)
    assert let_in < 40


def test_a_thousand_attempts_at_the_same_moment_do_not_slip_through(throttle):
    assert [throttle.admit("anna", "10.0.0.1") for _ in range(1000)].count(0) == 5


def test_a_user_is_not_locked_out_where_she_has_logged_in_before(throttle, clock):
    assert throttle.admit("anna", "10.0.0.7") == 0
    throttle.succeeded("anna", "10.0.0.7")
    for number in range(300):
        throttle.admit("anna", f"10.1.0.{number % 250}")
    assert throttle.admit("anna", "10.2.0.1") > 0
    assert throttle.admit("anna", "10.0.0.7") == 0


def test_a_password_of_ones_own_buys_no_guesses_at_others(throttle, clock):
    let_in = 0
    for _ in range(1000):
        if throttle.admit("bert", "10.0.0.1") == 0:
            throttle.succeeded("bert", "10.0.0.1")
        let_in += throttle.admit("anna", "10.0.0.1") == 0
    assert let_in <= 5


def test_typing_it_right_in_the_end_clears_ones_failures(throttle):
    for _ in range(3):
        throttle.admit("anna", "10.0.0.1")
    assert throttle.admit("anna", "10.0.0.1") == 0
    throttle.succeeded("anna", "10.0.0.1")
    assert [throttle.admit("anna", "10.0.0.1") for _ in range(5)] == [0] * 5


def test_failures_are_forgotten_after_an_hour_without_one(throttle, clock):
    for _ in range(9):
        throttle.admit("anna", "10.0.0.1")
    clock.now += 3601
    assert [throttle.admit("anna", "10.0.0.1") for _ in range(5)] == [0] * 5


def test_a_flood_of_names_and_addresses_takes_bounded_memory(throttle, clock):
    for number in range(30_000):
        throttle.admit(f"user{number}", f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1")
        if number % 3 == 0:
            throttle.succeeded(f"user{number}", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
        clock.now += 1
    assert throttle.size <= 4 * 4096


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_ipv6_addresses_of_one_customer_count_together(address, network):
    assert network_of(address) == network
