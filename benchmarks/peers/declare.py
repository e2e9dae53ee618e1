"""Declares the operators that torchvision's compiled part would bring, so that torchvision can be imported without it.

torchvision 0.28.0 from PyPI is compiled for a torch with CUDA. Beside the CPU torch of this environment its library
does not load, and `import torchvision` then fails at describing two operators that nobody has declared. PatchCore calls
none of them, so names and types are enough. Import this before what imports torchvision: timm, lightning, anomalib.
"""

import torch

__all__: list[str] = []

# subtle: where the compiled part does load it declares these itself, and a second declaration is an error; this is for
# the environment of README.md alone. (The other operators, roi_align and so on, are only described where it loads.)
for _name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{_name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
