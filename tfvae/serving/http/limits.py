"""What a service takes and how it batches; checked when it is made."""

from __future__ import annotations

from pydantic import Field

from tfvae.system.validation import Strict

__all__ = ["Limits"]


class Limits(Strict):
    """The limits of a service.

    Attributes:
        max_history: Largest number of items in a history.
        max_k: Largest number of items in an answer.
        max_body: Largest body of a request, in bytes.
        queue: Largest number of requests to a model that wait or run; any more get status 503.
        window_ms: Milliseconds that a request waits for others to share its batch, if none is running.
        batch: Largest number of requests in a batch.
        poll_seconds: Seconds between two looks at the run folders.
    """

    max_history: int = Field(1_000, ge=1)
    max_k: int = Field(1_000, ge=1)
    max_body: int = Field(2**20, ge=1)
    queue: int = Field(512, ge=1)
    window_ms: float = Field(2.0, ge=0, le=1_000)
    batch: int = Field(64, ge=1)
    poll_seconds: float = Field(5.0, gt=0)
