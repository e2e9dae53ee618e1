"""Backbones by name: `spec` says what a backbone is, `store` finds and stores them, `resnet` builds one from weights.

In reading order: `spec`, `store`, `published` (what the hub has), `hub` (fetches it), `resnet` (builds the graph from
safetensors), `resnet_layout` (the family on paper), `graph_check` (what a graph may hold).
"""

from totalrecall.backbones.published import PUBLISHED, Remote
from totalrecall.backbones.spec import Backbone, Layer
from totalrecall.backbones.store import BackboneInfo, add, available, load

__all__ = ["PUBLISHED", "Backbone", "BackboneInfo", "Layer", "Remote", "add", "available", "load"]
