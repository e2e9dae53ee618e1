"""`totalrecall backbones`: list those that are here, add one from a weights file."""

import argparse

from totalrecall.cli.common import check_target, human_bytes, print_table, write_json

__all__ = ["add_parser"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "backbones", help="list backbones, add one from a weights file", description="List or add backbones."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the backbones that are here")
    listing.add_argument("--json", metavar="FILE", help="write the list as JSON ('-' for stdout)")
    listing.set_defaults(run=run_list)
    adding = actions.add_parser(
        "add",
        help="build a backbone from a safetensors file",
        description="Build a ResNet-family backbone from a safetensors file with torchvision's or timm's key names.",
    )
    adding.add_argument("name", metavar="NAME", help="architecture: resnet18, resnet50, wide_resnet50_2, ...")
    adding.add_argument("--weights", required=True, metavar="FILE", help="safetensors file")
    adding.add_argument("--save-as", metavar="NAME", help="name to keep it under, if not the architecture's")
    adding.add_argument("--form", choices=("torchvision", "caffe"), help="default: as the file's own metadata says")
    adding.add_argument("--source", default="", help="where the weights come from, kept with them")
    adding.add_argument("--licence", default="", help="licence of the weights, kept with them")
    adding.set_defaults(run=run_add)


def run_list(args: argparse.Namespace) -> int:
    """Print a table of backbones."""
    from totalrecall.backbones import available

    check_target("--json", args.json)
    infos = available()
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
        write_json(args.json, {"backbones": rows})
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
    print_table(table)
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
    )
    layers = " ".join(layer.name.removeprefix("layer") for layer in backbone.layers)
    print(f"Added {backbone.name}: layers {layers}, sha256 {backbone.sha256[:16]}.")
    print(f"Use it with: --backbone {backbone.name}")
    return 0
