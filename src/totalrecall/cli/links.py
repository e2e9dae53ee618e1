"""Options of `totalrecall serve` that connect the station with a line, and the links that they ask for."""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from totalrecall.cli.paths import INPUT
from totalrecall.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from totalrecall.station.station import Link

__all__ = ["add_link_options", "links_of", "serial_reader"]

_EXTRAS = {  # option -> the module that it needs, and the extra that brings it
    "watch": ("watchfiles", "watch"),
    "mqtt": ("paho.mqtt", "mqtt"),
    "opcua": ("asyncua", "opcua"),
    "serial_from_code": ("zxingcpp", "codes"),
}


def add_link_options(parser: argparse.ArgumentParser) -> None:
    """Add the options; each link is off unless it is asked for."""
    _add_inputs(parser)
    _add_webhook(parser)
    _add_mqtt(parser)
    _add_opcua(parser)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures from the line")
    group.add_argument(
        "--watch",
        action="append",
        default=[],
        metavar="[MODEL=]DIR",
        help="inspect every picture that appears in a folder; may be given several times",
    )
    group.add_argument(
        "--watch-done",
        choices=("leave", "move", "delete"),
        default="leave",
        help="what becomes of a picture then; move: into DIR/VERDICT (default: %(default)s)",
    )
    group.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="[MODEL=]SOURCE",
        help="a number, an address (rtsp://...), env:NAME of a variable that holds it, or a video file; "
        "may be given several times",
    )
    group.add_argument(
        "--camera-interval",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="between two frames; 0: as many as can be judged (default: %(default)g)",
    )
    group.add_argument(
        "--serial-from-code",
        action="store_true",
        help="read the serial number from a DataMatrix or QR code in the picture, where none was sent",
    )


def _add_webhook(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("webhook")
    group.add_argument(
        "--webhook", action="append", default=[], metavar="URL", help="post each inspection to URL, signed"
    )
    group.add_argument(
        "--webhook-secret",
        metavar="FILE",
        type=INPUT,
        help="its first line is the secret of the signature (default: the variable TOTALRECALL_WEBHOOK_SECRET)",
    )
    group.add_argument(
        "--webhook-when",
        choices=("all", "rejects"),
        default="all",
        help="rejects: whatever was not found good (default: %(default)s)",
    )
    group.add_argument("--webhook-ca", metavar="FILE", type=INPUT, help="certificates that are trusted, PEM")


def _add_mqtt(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("MQTT")
    group.add_argument("--mqtt", metavar="URL", help="the broker: mqtt://HOST:PORT, or mqtts:// for TLS")
    group.add_argument(
        "--mqtt-prefix", metavar="TOPIC", default="totalrecall", help="of all topics (default: %(default)s)"
    )
    group.add_argument(
        "--mqtt-login",
        metavar="FILE",
        type=INPUT,
        help="name and password, a line each (default: TOTALRECALL_MQTT_USER and TOTALRECALL_MQTT_PASSWORD)",
    )
    group.add_argument("--mqtt-ca", metavar="FILE", type=INPUT, help="certificates that are trusted, PEM")
    group.add_argument("--mqtt-cert", metavar="FILE", type=INPUT, help="our own certificate, PEM")
    group.add_argument("--mqtt-key", metavar="FILE", type=INPUT, help="its key, PEM")


def _add_opcua(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("OPC UA")
    group.add_argument("--opcua", metavar="HOST:PORT", help="serve OPC UA clients there; usual: 127.0.0.1:4840")
    group.add_argument(
        "--opcua-login",
        metavar="FILE",
        type=INPUT,
        help="name and password of clients, a line each (default: TOTALRECALL_OPCUA_USER and "
        "TOTALRECALL_OPCUA_PASSWORD)",
    )
    group.add_argument("--opcua-cert", metavar="FILE", type=INPUT, help="the server's certificate: all is encrypted")
    group.add_argument("--opcua-key", metavar="FILE", type=INPUT, help="its key, PEM")


def serial_reader(args: argparse.Namespace) -> "Callable[[bytes], str | None] | None":
    """Return what reads serial numbers from pictures, where that is asked for."""
    if not args.serial_from_code:
        return None
    from totalrecall.station.links.codes import read_serial

    return read_serial


def links_of(args: argparse.Namespace) -> "list[Link]":
    """Return the links that are asked for, and the one that runs the cameras of recipes; none has begun.

    Raises:
        MissingExtraError: a link needs a package that is not installed.
        SettingError: an option is wrong, or the secret that it needs is missing.
    """
    for option, (module, extra) in _EXTRAS.items():
        if getattr(args, option) and not _is_installed(module):
            name = "--" + option.replace("_", "-")
            raise MissingExtraError(f"{name} needs more. Install it: pip install 'totalrecall[{extra}]'")
    return [*_inputs(args), *_webhooks(args), *_brokers(args), *_servers(args)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it lies in
        return False


def _inputs(args: argparse.Namespace) -> "list[Link]":
    links: list[Link] = []
    from totalrecall.station.camera_source import MOST_SECONDS, camera_source
    from totalrecall.station.links.camera import Camera
    from totalrecall.station.links.recipe_camera import RecipeCamera

    if args.watch:
        from totalrecall.station.links.hot_folder import HotFolder, Pace

        for text in args.watch:
            model, folder = _model_and_rest(args, "--watch", text)
            links.append(HotFolder(Path(folder), model, done=args.watch_done, pace=Pace(limit=args.max_body)))
    if not 0 <= args.camera_interval <= MOST_SECONDS:
        raise SettingError(
            f"camera_interval must be from 0 to {MOST_SECONDS:,}, got {args.camera_interval}.", "camera_interval"
        )
    cameras = []
    for text in args.camera:
        model, source = _model_and_rest(args, "--camera", text)
        cameras.append(Camera(camera_source(source), model, interval=args.camera_interval))
    return [*links, *cameras, RecipeCamera(args.camera_interval, [camera.source for camera in cameras])]


def _model_and_rest(args: argparse.Namespace, option: str, text: str) -> tuple[str | None, str]:
    """Return the model that is named before the first =, and what stands behind it.

    Raises:
        SettingError: there are several models, none of them is named, and no recipe can say it.
    """
    from totalrecall.station.quality.recipe_file import FILE

    names = [Path(path).stem for path in args.models]
    before, equals, rest = text.partition("=")
    if equals and before in names:  # subtle: folders and addresses may hold a = themselves
        return before, rest
    if len(names) > 1 and not (Path(args.folder) / FILE).exists():
        raise SettingError(
            f"{option} must name the model, since there are several: {option} {names[0]}={text}. "
            f"With a {FILE} in --folder the product's model judges."
        )
    return None, text


def _webhooks(args: argparse.Namespace) -> "list[Link]":
    if not args.webhook:
        return []
    from totalrecall.station.links.credentials import read_secret
    from totalrecall.station.links.webhook import Webhook

    secret = read_secret(_file(args.webhook_secret), "TOTALRECALL_WEBHOOK_SECRET")
    if secret is None:
        raise SettingError(
            "--webhook needs a secret for its signatures. Write one into a file (openssl rand -hex 32) and name it by "
            "--webhook-secret, or set TOTALRECALL_WEBHOOK_SECRET."
        )
    if len(set(args.webhook)) < len(args.webhook):
        raise SettingError("--webhook names the same address twice. Name each once.")
    names = ["webhook", *(f"webhook {number}" for number in range(2, len(args.webhook) + 1))]
    options = {"when": args.webhook_when, "authorities": _file(args.webhook_ca)}
    return [Webhook(url, secret, name, **options) for url, name in zip(args.webhook, names, strict=True)]


def _brokers(args: argparse.Namespace) -> "list[Link]":
    if not args.mqtt:
        return []
    from totalrecall.station.links.credentials import read_login
    from totalrecall.station.links.mqtt import Broker, Mqtt

    odd = [name for name in (Path(path).stem for path in args.models) if "+" in name]
    if odd:
        raise SettingError(f"A model's name is part of MQTT topics and may hold no +, got {odd[0]!r}. Rename its file.")
    login = read_login(_file(args.mqtt_login), "TOTALRECALL_MQTT")
    files = {"authorities": _file(args.mqtt_ca), "certificate": _file(args.mqtt_cert), "key": _file(args.mqtt_key)}
    return [Mqtt(Broker.at(args.mqtt, login, **files), prefix=args.mqtt_prefix, limit=args.max_body)]


def _servers(args: argparse.Namespace) -> "list[Link]":
    if not args.opcua:
        return []
    from totalrecall.station.links.credentials import read_login
    from totalrecall.station.links.opcua import Endpoint, OpcUa

    login = read_login(_file(args.opcua_login), "TOTALRECALL_OPCUA")
    cert, key = _file(args.opcua_cert), _file(args.opcua_key)
    return [OpcUa(Endpoint.at(args.opcua, login, cert, key, insecure=args.insecure), limit=args.max_body)]


def _file(name: str | None) -> Path | None:
    return None if name is None else Path(name)
