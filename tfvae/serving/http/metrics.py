"""What Prometheus reads at `/metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one service, in a registry of their own.

    Attributes:
        requests: Requests by route, model and status.
        seconds: Seconds from a request's arrival to the end of its answer, by route.
        batch_rows: Questions in a batch, by model.
        pending: Questions that wait or run, by model.
        models: 1 for the version of each model that is served, 0 for former ones.
        unknown: Item ids in requests that the model does not know.
        failures: New versions that could not be loaded.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("tfvae_requests", "Requests", ["route", "model", "status"], registry=registry)
        self.seconds = Histogram(
            "tfvae_request_seconds", "Seconds from request to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self.batch_rows = Histogram(
            "tfvae_batch_rows", "Requests answered in one batch", ["model"], buckets=ROWS, registry=registry
        )
        self.pending = Gauge("tfvae_pending", "Requests that wait or run", ["model"], registry=registry)
        self.models = Gauge("tfvae_model", "Whether a version is served", ["model", "version"], registry=registry)
        self.unknown = Counter("tfvae_unknown_ids", "Item ids that the model lacks", ["model"], registry=registry)
        self.failures = Counter(
            "tfvae_load_failures", "New versions that could not be loaded", ["model"], registry=registry
        )

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)
