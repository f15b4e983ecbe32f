"""Whether the held-out items of a published split are a random part: an item's held-out beside its training users.

It times nothing; the leaderboard's page has its figures. Give a data set whose files name the test items:

    TFVAE_DATA=/folder .venv/bin/python benchmarks/held_out_items.py gowalla
"""

from __future__ import annotations

import argparse

import numpy as np

from tfvae.data.open_split import open_split
from tfvae.data.splits import HeldOutShares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="its name, such as gowalla or amazon-book")
    parser.add_argument("--source", help="its folder, if it is not where tfvae looks")
    parser.add_argument("--items", type=int, default=200, help="how many items, those that most users have")
    parser.add_argument("--draws", type=int, default=20, help="how often the items are drawn at random")
    arguments = parser.parse_args()
    split = open_split(arguments.dataset, source=arguments.source, protocol="weak-generalization")
    for name, part in (("test", split.test), ("validation", split.for_tuning().validation)):
        if isinstance(part, HeldOutShares):
            found, drawn = spreads(part, arguments.items, arguments.draws)
            print(
                f"{name}: held-out over known users of an item, s.d. over the {arguments.items} items with most users: "
                f"{found:.3f}; drawn at random: {np.mean(drawn):.3f} (from {min(drawn):.3f} to {max(drawn):.3f})"
            )


def spreads(part: HeldOutShares, n_items: int, draws: int) -> tuple[float, list[float]]:
    """The standard deviation over items of held-out users / known users: as it is, and as often as items are drawn.

    For each draw the users keep their numbers of held-out items, and which of their items these are is drawn anew.

    Args:
        part: The known items of each user, and those that are held out.
        n_items: Number of items, those that most users have, known or held out.
        draws: Number of draws.
    """
    rng = np.random.default_rng(0)
    both = part.history, part.targets
    users = np.concatenate([np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)) for rows in both])
    items = np.concatenate([rows.indices for rows in both])
    held_out = np.arange(len(items)) >= part.history.nnz
    most = np.argsort(-np.bincount(items), kind="stable")[:n_items]

    def spread(marks: np.ndarray) -> float:
        held, known = (np.bincount(items[chosen], minlength=items.max() + 1)[most] for chosen in (marks, ~marks))
        return float(np.std(held / known))

    def drawn() -> float:
        marks = np.empty_like(held_out)
        shuffled = np.lexsort((rng.random(len(users)), users))
        marks[shuffled] = held_out[np.lexsort((~held_out, users))]  # of each user the first ones, as many as there were
        return spread(marks)

    return spread(held_out), [drawn() for _ in range(draws)]


if __name__ == "__main__":
    main()
