"""Questions that arrive together are answered together.

The questions to one version of a model wait in a queue. A batch takes what waits: all that came while the batch before
it ran, or what comes within the window after the first. Batches run one after the other in one thread, so that the
event loop is free for other requests. Questions that cannot share a batch, such as re-rankings, run one by one in a
second thread, and keep no batch waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from tfvae.serving.http.errors import RequestError

__all__ = ["Batcher"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")
RETRY_AFTER = 1
"""Seconds after which a caller may ask again when too much is waiting."""


class Batcher(Generic[Question, Answer]):
    """Collects questions into batches; to be used within one event loop.

    Args:
        answer: From the questions of a batch to their answers, in the same order; it runs in a thread.
        rows: Largest number of questions in a batch.
        window: Seconds that the first question of a batch waits for others, if no batch is running.
        queue: Largest number of requests that wait or run; any more are refused.
        on_batch: Called with the size of each batch, for metrics.
    """

    def __init__(
        self,
        answer: Callable[[list[Question]], Sequence[Answer]],
        *,
        rows: int,
        window: float,
        queue: int,
        on_batch: Callable[[int], Any] = lambda size: None,
    ):
        self._answer, self._rows, self._window, self._queue, self._on_batch = answer, rows, window, queue, on_batch
        self._waiting: deque[tuple[Question, asyncio.Future, float]] = deque()
        self._pending = 0
        self._arrived, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._batches = ThreadPoolExecutor(1, "batches")
        self._singles = ThreadPoolExecutor(1, "singles")
        self._loop_of_batches: asyncio.Task | None = None

    @property
    def pending(self) -> int:
        """How many requests wait or run."""
        return self._pending

    async def ask(self, question: Question) -> Answer:
        """Answers a question in a batch with others; to be called within `entered`."""
        if self._loop_of_batches is None:
            self._loop_of_batches = asyncio.create_task(self._run())
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append((question, future, loop.time()))
        self._arrived.set()
        return await future

    async def alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs a function that shares no batch, one at a time; to be called within `entered`."""
        return await asyncio.get_running_loop().run_in_executor(self._singles, function, *arguments)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Counts a request as pending, from its first question to its last answer.

        Raises:
            RequestError: With status 503, if too much is waiting.
        """
        if self._pending >= self._queue:
            raise RequestError(
                503,
                "overloaded",
                f"{self._pending:,} requests are waiting, and no more are taken; ask again in a second.",
                {"Retry-After": str(RETRY_AFTER)},
            )
        self._pending += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._pending -= 1
            if not self._pending:
                self._idle.set()

    async def close(self) -> None:
        """Ends the threads once every request that has entered is answered."""
        while self._pending:
            await self._idle.wait()
        if self._loop_of_batches is not None:
            self._loop_of_batches.cancel()
        self._batches.shutdown(wait=False)
        self._singles.shutdown(wait=False)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            rest = self._waiting[0][2] + self._window - loop.time()
            if rest > 0 and len(self._waiting) < self._rows:
                await asyncio.sleep(rest)
            batch = [self._waiting.popleft() for _ in range(min(self._rows, len(self._waiting)))]
            if not self._waiting:
                self._arrived.clear()
            # Nobody waits for the answer to a request whose caller has gone.
            batch = [entry for entry in batch if not entry[1].done()]
            if batch:
                self._on_batch(len(batch))
                await self._answer_all(batch)

    async def _answer_all(self, batch: list[tuple[Question, asyncio.Future, float]]) -> None:
        questions = [question for question, _, _ in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._batches, self._answer, questions)
        except Exception as error:
            if len(batch) > 1:  # so that the question that is to blame fails alone
                for entry in batch:
                    await self._answer_all([entry])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future, _), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
