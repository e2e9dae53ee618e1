"""What would a model find, before a real defect ever came? Planted defects, and the probability of their detection.

In reading order: `capability` (plants defects on good pictures and has them judged), `detection` (hits and misses to a
curve, a90 and a90/95), `page` (what people look at). The defects themselves are in `totalrecall.planting`.
"""

from totalrecall.capability.capability import Capability, CapabilityStudy, capability
from totalrecall.capability.detection import DetectionCurve, SizeLimit, fit_curve

__all__ = ["Capability", "CapabilityStudy", "DetectionCurve", "SizeLimit", "capability", "fit_curve"]
