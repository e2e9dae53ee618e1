"""What Prometheus reads at /metrics."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from totalrecall.station.store.records import Inspection

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """Counters, gauges and histograms of one station, in a registry of its own.

    Args:
        waiting: how many pictures wait, asked when Prometheus asks.
        limit: how many may wait.
        held: how many models are held.
        links: the links with the line by name, and whether each works.
    """

    def __init__(
        self,
        *,
        waiting: Callable[[], int],
        limit: int,
        held: Callable[[], int],
        links: Callable[[], Mapping[str, bool]],
    ) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._inspections = Counter(
            "totalrecall_inspections", "Pictures that were judged.", ["model", "verdict", "source"], registry=registry
        )
        self._seconds = Histogram(
            "totalrecall_inspection_seconds",
            "From a picture's arrival to its verdict, the queue included.",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "totalrecall_failures",
            "Pictures that got no answer by a fault of the station.",
            ["model"],
            registry=registry,
        )
        self._drift = Counter(
            "totalrecall_drift_alarms", "Changes of light, focus or position.", ["model", "measure"], registry=registry
        )
        self._requests = Counter(
            "totalrecall_http_requests", "HTTP requests by status.", ["method", "status"], registry=registry
        )
        self._refused = Counter(
            "totalrecall_refused",
            "Connections and requests that were refused before they were read, by reason.",
            ["reason"],
            registry=registry,
        )
        Gauge("totalrecall_queue", "Pictures that wait.", registry=registry).set_function(waiting)
        Gauge("totalrecall_queue_limit", "Pictures that may wait.", registry=registry).set(limit)
        gauge = Gauge("totalrecall_models_held", "Models that judge nothing, since a check failed.", registry=registry)
        gauge.set_function(held)
        registry.register(_Links(links))

    def inspected(self, inspection: "Inspection") -> None:
        """Count an inspection that is committed."""
        self._inspections.labels(inspection.model, inspection.verdict, inspection.source).inc()
        self._seconds.labels(inspection.model).observe(inspection.milliseconds / 1000)

    def failed(self, model: str) -> None:
        """Count a picture that got no answer."""
        self._failures.labels(model).inc()

    def drifted(self, model: str, measure: str) -> None:
        """Count an alarm of the drift monitor."""
        self._drift.labels(model, measure).inc()

    def answered(self, method: str, status: int) -> None:
        """Count an HTTP request."""
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"
        self._requests.labels(known, str(status)).inc()

    def refused(self, reason: str) -> None:
        """Count what the server refused: no HTTP, an upgrade, a connection too many."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """Return all of them as Prometheus reads them."""
        return generate_latest(self.registry)


class _Links(Collector):
    """Says at each question which links with the line work."""

    def __init__(self, links: Callable[[], Mapping[str, bool]]) -> None:
        self._links = links

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return 1 for each link that works, 0 for each that does not."""
        family = GaugeMetricFamily("totalrecall_link_up", "Whether a link with the line works.", labels=["link"])
        for name, works in self._links().items():
            family.add_metric([name], float(works))
        yield family
