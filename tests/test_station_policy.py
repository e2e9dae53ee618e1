"""policy: a station serves other computers only with users, and with TLS files only if they work."""

import math
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.station_access import PASSWORD, make_certificate
from totalrecall.errors import DataError, SettingError
from totalrecall.station.access.certificate import read_validity, tls_notices
from totalrecall.station.access.policy import Policy, check_exposure, check_tls, is_loopback, server_options
from totalrecall.station.store.records import ANYBODY


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]", "127.5.5.5", "::ffff:127.0.0.1"]
)
def test_the_loopback_needs_no_users(users, host):
    assert is_loopback(host)
    assert check_exposure(Policy(host=host), users) == []
    assert Policy(host=host).is_open


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0"),
        ({"host": "::"}, "--host ::"),
        ({"host": "192.168.1.5"}, "--host 192.168.1.5"),
        ({"host": "::ffff:192.168.1.5"}, "--host ::ffff:192.168.1.5"),
        ({"host": "station.factory"}, "--host station.factory"),
        ({"allow_hosts": ("localhost", "station.factory")}, "--allow-host station.factory"),
        ({"proxies": ("127.0.0.1",)}, "--proxy 127.0.0.1"),
    ],
)
def test_whatever_lets_other_computers_call_demands_users(users, changes, option):
    policy = Policy(**changes)
    assert not policy.is_open
    with pytest.raises(SettingError) as caught:
        check_exposure(policy, users)
    assert caught.value.exit_code == 2
    assert option in str(caught.value)
    assert "totalrecall station users add NAME --role engineer" in str(caught.value)
    assert "--insecure" in str(caught.value)


def test_a_user_or_a_token_is_enough_and_a_revoked_one_is_not(users):
    policy = Policy(host="0.0.0.0", tls=(Path("a"), Path("b")))
    users.tokens.add("press", ANYBODY)
    assert check_exposure(policy, users) == []
    users.tokens.revoke("press", ANYBODY)
    with pytest.raises(SettingError, match="has no users"):
        check_exposure(policy, users)
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    assert check_exposure(policy, users) == []


def test_insecure_is_said_aloud_and_so_are_passwords_without_tls(users):
    notices = check_exposure(Policy(host="0.0.0.0", insecure=True), users)
    assert len(notices) == 2
    assert "everybody in the network can do everything here" in notices[0]
    assert "unencrypted" in notices[1]
    users.add("anna", "engineer", PASSWORD, ANYBODY)
    assert len(check_exposure(Policy(host="0.0.0.0", insecure=True), users)) == 1


@pytest.mark.parametrize("name", ["", " ", "http://station", "a/b", "*", "*.factory", "a b@c", "a,b", "a "])
def test_a_further_name_must_be_a_name(name):
    with pytest.raises(SettingError, match="allow_host must be a name"):
        Policy(allow_hosts=(name,))


@pytest.mark.parametrize("limits", [{"timeout": one} for one in (-1, 0, math.nan, math.inf)] + [{"max_body": 0}])
def test_a_limit_that_would_let_nobody_in_is_refused(limits):
    (name,) = limits
    with pytest.raises(SettingError, match=f"{name} must be from"):
        Policy(**limits)


@pytest.mark.parametrize("proxy", ["", "*", "proxy.factory", "10.0.0.0/99"])
def test_a_proxy_must_be_an_address(proxy):
    with pytest.raises(SettingError, match="proxy must be an address or a network"):
        Policy(proxies=(proxy,))


def test_the_server_believes_no_proxy_by_itself_and_bounds_heads_and_connections():
    options = server_options(Policy())
    assert options["proxy_headers"] is False
    assert options["ws"] == "none"
    assert options["h11_max_incomplete_event_size"] <= 64 << 10
    assert options["limit_concurrency"] is not None
    assert "ssl_certfile" not in options


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder / "a.crt", folder / "a.key")
    make_certificate(folder / "b.crt", folder / "b.key")
    make_certificate(folder / "locked.crt", folder / "locked.key", "-passout", "pass:secret")
    (folder / "empty.crt").write_bytes(b"")
    (folder / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "folder.key").mkdir()
    return folder


def test_a_certificate_and_its_key_are_taken(files):
    pair = (files / "a.crt", files / "a.key")
    assert check_tls(*pair) == pair
    assert check_tls(None, None) is None
    assert server_options(Policy(tls=pair))["ssl_keyfile"] == str(files / "a.key")


@pytest.mark.parametrize(
    ("certificate", "key", "why"),
    [
        ("none.crt", "a.key", "The certificate .*none.crt is missing."),
        ("a.crt", "none.key", "The key .*none.key is missing."),
        ("a.crt", "folder.key", "The key .*folder.key is no file."),
        ("a.crt", "b.key", "The key .*b.key does not belong to the certificate .*a.crt."),
        ("locked.crt", "locked.key", "The key .*locked.key is encrypted, .*openssl pkey -in"),
        ("empty.crt", "a.key", "empty.crt holds no certificate in PEM form"),
        ("a.key", "a.crt", "a.key holds no certificate in PEM form"),
        ("a.crt", "a.crt", "a.crt holds no private key in PEM form"),
        ("broken.crt", "a.key", "cannot be used for TLS"),
    ],
)
def test_what_is_wrong_with_tls_files_is_said_in_one_line(files, certificate, key, why):
    with pytest.raises((DataError, SettingError), match=why) as caught:
        check_tls(files / certificate, files / key)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (2 if key == "b.key" else 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_cannot_be_read_is_told(files, tmp_path):
    key = tmp_path / "station.key"
    key.write_bytes((files / "a.key").read_bytes())
    key.chmod(0)
    with pytest.raises(DataError, match="cannot be read by this user"):
        check_tls(files / "a.crt", key)


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [("a.crt", None, "tls_cert needs tls_key"), (None, "a.key", "tls_key needs tls_cert")],
)
def test_a_certificate_goes_with_a_key(files, certificate, key, said):
    with pytest.raises(SettingError, match=said):
        check_tls(certificate and files / certificate, key and files / key)


def test_the_time_of_a_certificate_is_the_one_that_openssl_says(files):
    said = subprocess.run(
        ["openssl", "x509", "-noout", "-dates", "-in", str(files / "a.crt")], check=True, capture_output=True, text=True
    )
    begins, ends = (line.partition("=")[2] for line in said.stdout.splitlines())
    form = "%b %d %H:%M:%S %Y GMT"
    validity = read_validity(files / "a.crt")
    assert validity.begins == datetime.strptime(begins, form).replace(tzinfo=timezone.utc)
    assert validity.ends == datetime.strptime(ends, form).replace(tzinfo=timezone.utc)


def test_a_certificate_of_a_far_year_and_one_with_its_chain_are_read(files):
    make_certificate(files / "far.crt", files / "far.key", "-nodes", "-days", "40000")
    assert read_validity(files / "far.crt").ends.year > 2100  # not a UTCTime any more
    (files / "chain.crt").write_bytes((files / "a.crt").read_bytes() + (files / "far.crt").read_bytes())
    assert read_validity(files / "chain.crt") == read_validity(files / "a.crt")


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [
        (-40, None, None),
        (-31, None, None),
        (-29, "soon", "ends on .*, in 29 days. Put a new one in its place"),
        (-1, "soon", "ends on .*, in 1 day. Put"),
        (1, "ended", "ended on .*: clients refuse it"),
        (-400, "early", "is good from .* on only. Is this computer's clock right?"),
    ],
)
def test_a_certificate_that_ends_soon_is_said_a_month_before(files, days, state, words):
    make_certificate(files / "year.crt", files / "year.key", "-nodes", "-days", "365")
    validity = read_validity(files / "year.crt")
    now = validity.ends + timedelta(days=days, minutes=-1)
    assert validity.state(now) == state
    notices = tls_notices((files / "year.crt", files / "year.key"), now)
    assert [bool(re.search(words, notice)) for notice in notices] == ([True] if words else [])


@pytest.mark.skipif(sys.platform == "win32", reason="needs rights of POSIX")
def test_a_key_that_everybody_can_read_is_said(files, tmp_path):
    key = tmp_path / "open.key"
    key.write_bytes((files / "a.key").read_bytes())
    for mode, count in ((0o600, 0), (0o640, 0), (0o644, 1)):
        key.chmod(mode)
        said = [notice for notice in tls_notices((files / "a.crt", key)) if "everybody on this computer" in notice]
        assert len(said) == count


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_says_no_time_is_told_in_one_line(tmp_path, text):
    (tmp_path / "x.crt").write_text(text)
    with pytest.raises(DataError, match=r"x\.crt does not say until when it is good"):
        read_validity(tmp_path / "x.crt")
