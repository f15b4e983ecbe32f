"""Small models, histories of people as files of events, and files of rankings read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rating_rows import random_ratings, ready
from scipy.sparse import csr_array

from tfvae.data.items import Items
from tfvae.training.settings import settings_of

N_USERS, N_ITEMS, K, SCALE = 23, 40, 12, (1.0, 5.0)
NUMBERS = np.random.default_rng(1).permutation(1000)[:N_ITEMS] - 200  # in no order; some are negative
STRINGS = np.array([f'tt{number:04d}é, "{number}"' for number in range(N_ITEMS)])
TITLES = np.array([f"Title, of “{number}”" if number % 3 else "" for number in range(N_ITEMS)])
ENDINGS = ["parquet", "csv", "jsonl"]
SMALL = {
    "mult-dae": {"latent_dim": 4},
    "ease": {},
    "popularity": {},
    "gmf": {"factors": 2},
    "cdae": {"latent_dim": 4},
    "p-vae": {"embedding_dim": 6, "latent_dim": 3, "decoder_hidden": [5], "variance": 0.8},
    "bias-mf": {"factors": 2, "regularization": 0.05},
}
RATES = {"p-vae", "bias-mf"}
USERS = {
    "numbers": np.arange(N_USERS) * 7 - 40,
    "texts": np.array([f'{number % 5},"{number}"\nü' for number in range(N_USERS)]),
}


def built(name):
    """A model with random or fitted weights."""
    model = settings_of(name, SMALL[name]).build(N_ITEMS, n_users=60)
    rows = random_ratings(60, N_ITEMS, seed=5) if name in RATES else histories_of(60, seed=5)
    if hasattr(model, "fit_matrix"):
        model.fit_matrix(rows, log=lambda line: None)
    elif name in RATES:
        ready(model, rows)
    return model


def histories_of(n_users=N_USERS, seed=0):
    """Random histories as a matrix; user 4 has all items but two."""
    kept = np.random.default_rng(seed).random((n_users, N_ITEMS)) < 0.2
    kept[:, 0] |= ~kept.any(axis=1)
    kept[4] = True
    kept[4, [7, 30]] = False
    return csr_array(kept.astype(np.float32))


def items_of(item_ids, *, rates=False, titles=TITLES):
    return Items(item_ids, titles, SCALE if rates else None, np.arange(N_ITEMS))


def events_of(matrix, user_ids, item_ids):
    """User, item and rating of each entry of a matrix, shuffled, so that a user's events are all over the file."""
    rows, columns = matrix.nonzero()
    order = np.random.default_rng(9).permutation(len(rows))
    return {"user": user_ids[rows[order]], "item": item_ids[columns[order]], "rating": matrix.data[order]}


def written(path: Path, columns) -> Path:
    """Events as a CSV, JSON lines or Parquet file."""
    columns = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in columns.items()}
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    else:
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read(path: Path) -> dict[str, list]:
    """The columns of a file of rankings, as Python values; those of CSV as it is read by the csv module, with types."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        kinds = {"rank": int, "score": np.float32, "sd": np.float32}
        return {
            name: list(map(kinds.get(name, str), column))
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {name: [row[name] for row in rows] for name in rows[0]}
