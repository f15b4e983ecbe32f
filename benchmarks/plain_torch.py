"""Contestants: Mult-VAE in PyTorch, plain and dense, and with EmbeddingBag and fused Adam."""

from __future__ import annotations

import torch
from common import MODEL, Limit, Meter, answer, contestant_arguments
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.trunc_normal_(layer.bias, std=0.001, a=-0.002, b=0.002)
    return layer


class DenseRows(nn.Module):
    """First layer and log-likelihood on dense rows [B, n_items]."""

    def __init__(self, n_items: int):
        super().__init__()
        self.linear = _linear(n_items, MODEL.hidden)

    @staticmethod
    def load(matrix: csr_array) -> torch.Tensor:
        """The batch as a tensor."""
        return torch.from_numpy(matrix.toarray())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """L2 normalisation, dropout, product."""
        return self.linear(functional.dropout(functional.normalize(x), MODEL.dropout))

    @staticmethod
    def nll(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Mean over users of -Σ x·log softmax."""
        return -(functional.log_softmax(logits, dim=1) * x).sum(dim=1).mean()


class ItemBags(nn.Module):
    """The same on the non-zeros: EmbeddingBag and a gathered log-likelihood."""

    def __init__(self, n_items: int):
        super().__init__()
        self.bag = nn.EmbeddingBag(n_items, MODEL.hidden, mode="sum")
        nn.init.xavier_uniform_(self.bag.weight)
        self.bias = nn.Parameter(torch.empty(MODEL.hidden))
        nn.init.trunc_normal_(self.bias, std=0.001, a=-0.002, b=0.002)

    @staticmethod
    def load(matrix: csr_array) -> tuple[torch.Tensor, ...]:
        """The batch as items [nnz], their rows [nnz], starts [B] and counts [B]."""
        starts = torch.from_numpy(matrix.indptr).long()
        counts = starts.diff()
        rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
        return torch.from_numpy(matrix.indices).long(), rows, starts[:-1], counts

    def forward(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """L2 normalisation, dropout, product."""
        items, rows, starts, counts = batch
        weights = functional.dropout(counts.clamp(min=1).rsqrt()[rows], MODEL.dropout)
        return self.bag(items, starts, per_sample_weights=weights) + self.bias

    @staticmethod
    def nll(logits: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mean over users of n·logsumexp minus the logits of their items."""
        items, rows, _, counts = batch
        return ((counts * logits.logsumexp(dim=1)).sum() - logits[rows, items].sum()) / len(counts)


class MultVAE(nn.Module):
    """Mult-VAE [n_items, 600, 200, 600, n_items] on a first layer."""

    def __init__(self, first: DenseRows | ItemBags, n_items: int):
        super().__init__()
        self.first = first
        self.code = _linear(MODEL.hidden, 2 * MODEL.latent_dim)
        self.decoder = nn.Sequential(_linear(MODEL.latent_dim, MODEL.hidden), nn.Tanh(), _linear(MODEL.hidden, n_items))

    def loss(self, batch, beta: float) -> torch.Tensor:
        """The negative ELBO with KL weight `beta`, averaged over users."""
        mean, log_variance = self.code(torch.tanh(self.first(batch))).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(dim=1).mean()
        return self.first.nll(self.decoder(z), batch) + beta * kl


def _matmul(a: torch.Tensor, b: torch.Tensor, transpose_a: bool, transpose_b: bool) -> torch.Tensor:
    return torch.matmul(a.T if transpose_a else a, b.T if transpose_b else b)


def main() -> None:
    """Trains and writes what was measured."""
    arguments = contestant_arguments(__doc__, ["dense", "embedding-bag"])
    problem = arguments.problem
    n_items = problem.matrix.shape[1]
    torch.manual_seed(MODEL.seed)
    sparse = arguments.variant == "embedding-bag"
    model = MultVAE((ItemBags if sparse else DenseRows)(n_items), n_items)
    # None lets PyTorch choose, as plain code does.
    adam = torch.optim.Adam(model.parameters(), lr=MODEL.learning_rate, fused=True if sparse else None)
    # nn.Linear keeps its weight as [outputs, inputs]: item-major.
    meter = Meter(lambda: Limit(n_items, True, torch.from_numpy, _matmul), arguments.warmup, arguments.every)
    total, n_users = 0.0, 0
    for update, users in enumerate(problem.batches):
        batch = model.first.load(problem.matrix[users])
        adam.zero_grad()
        loss = model.loss(batch, MODEL.beta(update))
        loss.backward()
        adam.step()
        total, n_users = total + loss.item() * len(users), n_users + len(users)
        meter.step_done()
    answer(arguments.out, meter, total / n_users, torch=torch.__version__)


if __name__ == "__main__":
    main()
