"""Makes the files of this example: a log as it was yesterday, the log as it is today, and a file of its films.

They stand for your own and are cut from MovieTweetings (MIT), which comes with tfvae: whoever tweeted a rating has seen
the film. Ids are text, as in most shops: `u17` for people, `tt0111161` for films.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import tfvae
from tfvae.system.files import write_text

FEWEST_FILMS, FEWEST_PEOPLE = 5, 20
DAY = 24 * 60 * 60


def main() -> None:
    """Writes yesterday.csv, today.csv and films.csv into the folder in which it is called."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=3000, help="how many people the log has at most")
    n_people = parser.parse_args().people

    tweets = tfvae.load_dataset("movietweetings")
    common = np.bincount(tweets.items, minlength=tweets.n_items) >= FEWEST_PEOPLE
    active = np.bincount(tweets.users[common[tweets.items]], minlength=tweets.n_users) >= FEWEST_FILMS
    people = np.random.default_rng(1).permutation(np.flatnonzero(active))[:n_people]
    kept = common[tweets.items] & np.isin(tweets.users, people)
    when = tweets.timestamps[kept]
    log = pd.DataFrame(
        {
            "member_id": [f"u{name}" for name in tweets.user_ids[tweets.users[kept]]],
            "film_id": [f"tt{name:07}" for name in tweets.item_ids[tweets.items[kept]]],
            "time": pd.to_datetime(when, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ).iloc[np.argsort(when, kind="stable")]
    films = pd.DataFrame(
        {
            "film_id": [f"tt{name:07}" for name in tweets.item_ids[common]],
            "title": tweets.titles[common],
            "genres": tweets.item_features["genres"][common],
        }
    )
    n_before = int((when < when.max() - DAY).sum())
    for name, table in {"yesterday": log[:n_before], "today": log, "films": films}.items():
        write_text(Path(f"{name}.csv"), table.to_csv(index=False))


if __name__ == "__main__":
    main()
