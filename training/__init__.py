"""Training of `compact`, the built-in backbone: a ResNet-18 made cheaper, fine-tuned to give the same maps.

In reading order: `textures` (procedural pictures and damage), `data` (pictures to augmented batches), `networks` (teacher and
students), `designs` (what was compared), `train` (the loop), `validate` (agreement with the teacher), `export` (the ONNX file).
"""
