"""Training of `compact`, the built-in backbone: a thinned ResNet-18, fine-tuned to give the same maps as the whole one.

In reading order: `textures` (procedural pictures and damage), `data` (pictures to augmented batches), `networks`
(teacher and students), `pruning` (a student's first weights), `designs` (what was compared), `train` (the loop),
`validate` (agreement with the teacher), `export` (the ONNX file) and `timing` (its speed).
"""
