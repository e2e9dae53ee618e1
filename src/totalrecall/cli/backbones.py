"""`totalrecall backbones`: list those that are here or on the hub, add one from a weights file or from the hub."""

import argparse

from totalrecall.cli.common import check_target, emit, print_table, write_json
from totalrecall.cli.paths import INPUT, OUTPUT
from totalrecall.system.text import human_bytes

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "backbones",
        help="list backbones, or add one from the hub or from a weights file",
        description="List or add backbones.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list",
        help="list the backbones that are installed, and those that can be downloaded",
        description="List the backbones that are installed, with their layers, source and licence, and those that can "
        "be downloaded by name.",
    )
    listing.add_argument("--json", metavar="FILE", type=OUTPUT, help="write the list as JSON ('-' for stdout)")
    listing.set_defaults(run=run_list)
    adding = actions.add_parser(
        "add",
        help="build a backbone from the hub or from a weights file",
        description="Build a backbone from the weights published under its name on the Hugging Face hub, or from a "
        "file of weights: safetensors or a torch checkpoint (.pth), of which tensors alone are read.",
    )
    adding.add_argument(
        "name",
        metavar="NAME",
        help="architecture: resnet18, dinov2_vits14, ...; or timm:NAME, any network of timm, with torch installed",
    )
    adding.add_argument(
        "--weights",
        metavar="FILE",
        type=INPUT,
        help="safetensors file, torch checkpoint, or a place on the hub: OWNER/REPO or "
        "hf://OWNER/REPO[@REVISION][/FILE] (default: the weights published under NAME)",
    )
    adding.add_argument(
        "--save-as", metavar="NAME", help="name to store it under (default: the name of the architecture)"
    )
    adding.add_argument(
        "--form",
        choices=("torchvision", "caffe"),
        help="how the weights expect pictures: RGB as in torchvision, or BGR as in Caffe (default: as the file says)",
    )
    adding.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the prepared pictures, for a network of timm that is built for one size (default: 448 for "
        "transformers)",
    )
    adding.add_argument("--source", default="", help="where the weights come from; stored with them")
    adding.add_argument("--licence", default="", help="licence of the weights; stored with them")
    adding.set_defaults(run=run_add)


def run_list(args: argparse.Namespace) -> int:
    """Print a table of backbones."""
    from totalrecall.backbones import PUBLISHED, available
    from totalrecall.backbones.families import channels_of
    from totalrecall.backbones.published import architecture_of

    check_target("--json", args.json)
    infos = available()
    here = {info.name for info in infos}
    published = {name: remote for name, remote in PUBLISHED.items() if name not in here}
    if args.json:
        rows = [
            {
                "name": info.name,
                "path": str(info.path),
                "built_in": info.built_in,
                "bytes": info.size,
                "layers": {layer.name: layer.channels for layer in info.layers},
                "licence": info.licence,
                "source": info.source,
                "problem": info.problem,
            }
            for info in infos
        ]
        remotes = [
            {
                "name": name,
                "repository": remote.repository,
                "tag": remote.tag,
                "file": remote.file,
                "url": remote.url,
                "bytes": remote.size,
                "licence": remote.licence,
            }
            for name, remote in published.items()
        ]
        write_json(args.json, {"backbones": rows, "published": remotes})
        if args.json == "-":
            return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "layers (channels)", "size", "where", "licence"):
        table.add_column(heading, overflow="fold")
    for info in infos:
        layers = " ".join(f"{layer.name.removeprefix('layer')} ({layer.channels})" for layer in info.layers)
        where = "built in" if info.built_in else str(info.path.parent)
        table.add_row(info.name, info.problem or layers, human_bytes(info.size), where, info.licence)
    for name, remote in published.items():
        layers = " ".join(f"{layer} ({count})" for layer, count in channels_of(architecture_of(name)).items())
        size = human_bytes(remote.size) if remote.size else ""
        table.add_row(name, layers, size, f"hub, {remote.tag}".rstrip(", "), remote.licence)
    print_table(table)
    emit("To download a backbone of the hub: totalrecall backbones add wide_resnet50_2")
    return 0


def run_add(args: argparse.Namespace) -> int:
    """Build and keep one."""
    from totalrecall.backbones import add

    backbone = add(
        args.name,
        args.weights,
        save_as=args.save_as,
        source=args.source,
        licence=args.licence,
        form=args.form,
        size=args.size,
    )
    layers = " ".join(layer.name.removeprefix("layer") for layer in backbone.layers)
    emit(f"Added {backbone.name}: layers {layers}, sha256 {backbone.sha256[:16]}.")
    emit(f"Use it with: --backbone {backbone.name}")
    return 0
