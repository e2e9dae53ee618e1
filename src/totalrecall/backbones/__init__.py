"""Backbones by name: `spec` says what a backbone is, `store` finds and stores them, `resnet` builds one from weights.

In reading order: `spec`, `store`, `published` (what the hub has), `hub` (fetches it), `weights` and `checkpoint` (read
it); `graph` (what all builders share), `resnet` (builds the graph of one), `resnet_layout` (the family on paper),
`efficientnet_lite`, `dinov2` and `position` (its position embeddings at any size), `families` (each architecture and
its builder); `timm_models` and `exported` (any network of timm, with torch); `quantize` (a graph of 8 bits);
`graph_check` (what a graph may hold), `graph_reader` (what it holds, for engines).
"""

from totalrecall.backbones.published import PUBLISHED, Remote
from totalrecall.backbones.spec import Advice, Backbone, Layer
from totalrecall.backbones.store import BackboneInfo, add, available, load

__all__ = ["PUBLISHED", "Advice", "Backbone", "BackboneInfo", "Layer", "Remote", "add", "available", "load"]
