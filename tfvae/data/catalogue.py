"""The named data sets: what they are, whose they are, where to get them, and how the papers cut them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfvae.data import formats
from tfvae.data.sources import Place
from tfvae.data.splits import StrongGeneralizationSettings
from tfvae.data.user_lists import GivenParts, read_given_parts

__all__ = ["DATASETS", "Dataset"]

_GROUPLENS = "https://files.grouplens.org/datasets/movielens/"
_MIRROR = "https://huggingface.co/datasets/Recommenders/MovieLens/resolve/main/"  # same bytes, so the same md5
_MOVIELENS_LICENCE = "for research, no redistribution (GroupLens; see the README in the zip)"
_MOVIELENS_CITATION = "F. M. Harper, J. A. Konstan. The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015."
_NCF_CITATION = "X. He, L. Liao, H. Zhang, L. Nie, X. Hu, T.-S. Chua. Neural Collaborative Filtering. WWW 2017."
_RANKING_PROTOCOLS = ("strong-generalization", "weak-generalization")
_RATING_PROTOCOLS = ("strong-generalization", "rating-holdout", "leave-one-out", "weak-generalization")
_NCF_FILES = "github.com/hexiangnan/neural_collaborative_filtering, folder Data"


@dataclass(frozen=True)
class Dataset:
    """A named data set.

    Attributes:
        name: Name used in commands.
        title: Name used in papers.
        licence: Its licence, in a few words.
        citation: What those who use it should cite.
        protocols: The kinds of split it can be opened as.
        files: Name patterns of its main file; one of them must be found.
        folders: Possible names of its own folder or zip.
        how_to_get: Where to get its files, and which of them to place; for messages.
        read: Function from the place of the files to the arguments of `Interactions.from_events`; None for a data set
            that is drawn or comes already split.
        n_events: Number of events it is known to have; None if it is not fixed.
        strong: Its settings of strong generalisation; None if it comes already split.
        scale: Its lowest and highest rating; None if it has no ratings or no rating hold-out.
        urls: Addresses of the zip, the official one first; empty if it is not to be downloaded.
        checksum: Checksum of the zip, ``"md5:…"``.
        sha256: Checksums of its unpacked files by name, compared if all of them are there; files that differ are read,
            with a warning.
        read_parts: Function from the place of the files to the parts that they name for weak generalisation; None if
            these parts are drawn.
    """

    name: str
    title: str
    licence: str
    citation: str
    protocols: tuple[str, ...] = _RATING_PROTOCOLS
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    how_to_get: str = ""
    read: Callable[[Place], dict[str, Any]] | None = None
    n_events: int | None = None
    strong: StrongGeneralizationSettings | None = None
    scale: tuple[float, float] | None = None
    urls: tuple[str, ...] = ()
    checksum: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)
    read_parts: Callable[[Place], GivenParts] | None = None


def _strong(held_out_users: int, min_rating: float | None = 4, **filters: int) -> StrongGeneralizationSettings:
    return StrongGeneralizationSettings(held_out_users=held_out_users, min_rating=min_rating, **filters)


def _arguments(events: formats.RawEvents, **tables: Any) -> dict[str, Any]:
    names = ("user_ids", "item_ids", "values", "timestamps")
    return dict(zip(names, events, strict=True)) | tables


def _if_found(read: Callable, path: Any, *options: Any) -> Any:
    return None if path is None else read(path, *options)


def _movielens_100k(place: Place) -> dict[str, Any]:
    return _arguments(
        formats.read_tabbed(place.require("u.data")),
        users=_if_found(formats.read_u_user, place.find("u.user")),
        items=_if_found(formats.read_u_item, place.find("u.item")),
    )


def _movielens_1m(place: Place) -> dict[str, Any]:
    ratings = place.require("ratings.dat", "ratings.csv")
    read = formats.read_double_colon if ".dat" in ratings.name else formats.read_movielens_csv
    return _arguments(
        read(ratings),
        users=_if_found(formats.read_users_dat, place.find("users.dat")),
        items=_if_found(formats.read_movies_dat, place.find("movies.dat"), "latin-1"),
    )


def _double_colon(place: Place) -> dict[str, Any]:
    return _arguments(
        formats.read_double_colon(place.require("ratings.dat")),
        items=_if_found(formats.read_movies_dat, place.find("movies.dat"), "utf-8"),
    )


def _movielens_20m(place: Place) -> dict[str, Any]:
    return _arguments(
        formats.read_movielens_csv(place.require("ratings.csv")),
        items=_if_found(formats.read_movies_csv, place.find("movies.csv")),
    )


def _netflix(place: Place) -> dict[str, Any]:
    return _arguments(
        formats.read_netflix(place.find_all("combined_data_*.txt") or place.find_all("mv_*.txt")),
        items=_if_found(formats.read_netflix_titles, place.find("movie_titles.csv", "movie_titles.txt")),
    )


def _taste_profile(place: Place) -> dict[str, Any]:
    return _arguments(formats.read_triplets(place.require("train_triplets.txt")))


def _user_lists(place: Place) -> dict[str, Any]:
    parts = read_given_parts(place)
    return _arguments(formats.RawEvents(parts.users, parts.items, None))


def _pinterest(place: Place) -> dict[str, Any]:
    """NCF's training and test events together, as they were before NCF cut them."""
    parts = [formats.read_tabbed(place.require(f"pinterest-20.{part}.rating"))[:2] for part in ("train", "test")]
    users, items = (np.concatenate([np.asarray(part[axis]) for part in parts]) for axis in (0, 1))
    return _arguments(formats.RawEvents(users, items, None))


def _movielens(name: str, title: str, md5: str, **others: Any) -> Dataset:
    return Dataset(
        name,
        title,
        _MOVIELENS_LICENCE,
        _MOVIELENS_CITATION,
        how_to_get=f"fetch {_GROUPLENS}{name}.zip and leave it zipped or unpack it",
        urls=(f"{_GROUPLENS}{name}.zip", f"{_MIRROR}{name}.zip"),
        checksum=f"md5:{md5}",
        **others,
    )


_ENTRIES = (
    Dataset(
        "movietweetings",
        "MovieTweetings (6 November 2013)",
        "MIT (Simon Dooms)",
        "S. Dooms, T. De Pessemier, L. Martens. MovieTweetings: a Movie Rating Dataset Collected From "
        "Twitter. CrowdRec at RecSys 2013.",
        files=("ratings.dat",),
        folders=("movietweetings",),
        how_to_get="it comes with tfvae",
        read=_double_colon,
        n_events=141_695,
        strong=_strong(500, 7, min_users_per_item=5),
        scale=(0, 10),
    ),
    _movielens(
        "ml-100k",
        "MovieLens-100K",
        md5="0e33842e24a9c977be4e0107933c0723",
        files=("u.data",),
        folders=("ml-100k",),
        read=_movielens_100k,
        n_events=100_000,
        strong=_strong(100),
        scale=(1, 5),
    ),
    _movielens(
        "ml-1m",
        "MovieLens-1M",
        md5="c4d9eecfca2ab87c1945afe126590906",
        files=("ratings.dat", "ratings.csv"),
        folders=("ml-1m",),
        read=_movielens_1m,
        n_events=1_000_209,
        strong=_strong(1_000),
        scale=(1, 5),
    ),
    _movielens(
        "ml-10m",
        "MovieLens-10M",
        md5="ce571fd55effeba0271552578f2648bd",
        files=("ratings.dat",),
        folders=("ml-10m", "ml-10M100K"),
        read=_double_colon,
        n_events=10_000_054,
        strong=_strong(5_000),
        scale=(0.5, 5),
    ),
    _movielens(
        "ml-20m",
        "MovieLens-20M",
        md5="cd245b17a1ae2cc31bb14903e1204af3",
        files=("ratings.csv",),
        folders=("ml-20m",),
        read=_movielens_20m,
        n_events=20_000_263,
        strong=_strong(10_000),
        scale=(0.5, 5),
    ),
    Dataset(
        "netflix",
        "Netflix Prize",
        "for research, as the Netflix Prize's rules said; no redistribution",
        "J. Bennett, S. Lanning. The Netflix Prize. KDD Cup and Workshop 2007.",
        files=("combined_data_*.txt", "mv_*.txt"),
        folders=("netflix", "training_set"),
        how_to_get="it has no lawful direct link: get it as a registered user from "
        "kaggle.com/datasets/netflix-inc/netflix-prize-data and place combined_data_1.txt to "
        "combined_data_4.txt and movie_titles.csv (or the older training_set/mv_*.txt)",
        read=_netflix,
        n_events=100_480_507,
        strong=_strong(40_000),
        scale=(1, 5),
    ),
    Dataset(
        "msd",
        "Million Song Dataset (Taste Profile)",
        "for research, as The Echo Nest's terms say",
        "T. Bertin-Mahieux, D. P. W. Ellis, B. Whitman, P. Lamere. The Million Song Dataset. ISMIR 2011.",
        protocols=("strong-generalization", "leave-one-out", "weak-generalization"),
        files=("train_triplets.txt",),
        folders=("msd",),
        how_to_get="no checksum is published for it, so it is not downloaded unseen: read the terms at "
        "millionsongdataset.com/tasteprofile and place train_triplets.txt",
        read=_taste_profile,
        n_events=48_373_586,
        strong=_strong(50_000, None, min_users_per_item=200, min_items_per_user=20),
    ),
    Dataset(
        "gowalla",
        "Gowalla (10-core)",
        "not stated",
        "E. Cho, S. A. Myers, J. Leskovec. Friendship and Mobility. KDD 2011. Cut by X. Wang, X. He, M. Wang, F. Feng, "
        "T.-S. Chua. Neural Graph Collaborative Filtering. SIGIR 2019.",
        protocols=_RANKING_PROTOCOLS,
        files=("train.txt",),
        folders=("gowalla",),
        how_to_get="it has no stated licence; LightGCN's authors have it at github.com/gusye1234/LightGCN-PyTorch, "
        "folder data/gowalla: place train.txt and test.txt, and valid.txt if you have it",
        read=_user_lists,
        n_events=1_027_370,
        strong=_strong(3_000, None),
        # The train.txt of LightGCN's authors has the events of this valid.txt as well; test.txt is theirs to the byte.
        sha256={
            "train.txt": "d47e01d060624f389956c0b2f89a1ed8c453ea158631cd2b5320c241f3e1a073",
            "valid.txt": "ddc22c1cd9a7d14fd5cd0c98b1473b614f4323038fef74ae0d28cc9c92a08ba2",
            "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
        },
        read_parts=read_given_parts,
    ),
    Dataset(
        "amazon-book",
        "Amazon-book (10-core, as in KGAT)",
        "that of the reviews is not stated; KGAT's repository is MIT",
        "R. He, J. McAuley. Ups and Downs. WWW 2016. Cut by X. Wang, X. He, Y. Cao, M. Liu, T.-S. Chua. KGAT: "
        "Knowledge Graph Attention Network for Recommendation. KDD 2019.",
        protocols=_RANKING_PROTOCOLS,
        files=("train.txt",),
        folders=("amazon-book",),
        how_to_get="the reviews have no stated licence; KGAT's authors have it at "
        "github.com/xiangwang1223/knowledge_graph_attention_network, folder Data/amazon-book: place train.txt and "
        "test.txt",
        read=_user_lists,
        n_events=846_434,
        strong=_strong(7_000, None),
        sha256={
            "train.txt": "4d10106bb06a77e11df660429903c0067aeb85b86431807836b0d8b7edc30c38",
            "test.txt": "f47eff9d35fb95c07d74251a991478a84095ce6c5969b0dafcb4afe99fc716ec",
        },
        read_parts=read_given_parts,
    ),
    Dataset(
        "pinterest",
        "Pinterest (at least 20 pins)",
        "not stated",
        _NCF_CITATION + " Data: X. Geng, H. Zhang, J. Bian, T.-S. Chua. ICCV 2015.",
        protocols=_RANKING_PROTOCOLS,
        files=("pinterest-20.train.rating",),
        folders=("pinterest", "pinterest-20", "ncf-pinterest"),
        how_to_get=f"it has no stated licence; NCF's authors have it at {_NCF_FILES}: place "
        "pinterest-20.train.rating and pinterest-20.test.rating, which are put together again",
        read=_pinterest,
        n_events=1_500_809,
        strong=_strong(5_500, None),
    ),
    Dataset(
        "ncf-ml-1m",
        "MovieLens-1M as split by NCF",
        _MOVIELENS_LICENCE,
        _NCF_CITATION,
        protocols=("leave-one-out",),
        files=("ml-1m.train.rating",),
        folders=("ncf-ml-1m", "ml-1m"),
        how_to_get=f"MovieLens data may not be passed on; NCF's authors have it at {_NCF_FILES}: place "
        "ml-1m.train.rating, ml-1m.test.rating and ml-1m.test.negative",
        n_events=994_169,
    ),
    Dataset(
        "ncf-pinterest",
        "Pinterest as split by NCF",
        "not stated",
        _NCF_CITATION + " Data: X. Geng, H. Zhang, J. Bian, T.-S. Chua. ICCV 2015.",
        protocols=("leave-one-out",),
        files=("pinterest-20.train.rating",),
        folders=("ncf-pinterest", "pinterest-20"),
        how_to_get=f"it has no stated licence; NCF's authors have it at {_NCF_FILES}: place "
        "pinterest-20.train.rating, pinterest-20.test.rating and, if you have it, pinterest-20.test.negative",
        n_events=1_445_622,
    ),
    Dataset(
        "synthetic",
        "Synthetic, with planted tastes",
        "none needed",
        "tfvae.data.synthetic",
        how_to_get="it is drawn, not read; see tfvae.data.synthetic",
        strong=_strong(200, None),
        scale=(1, 5),
    ),
)

DATASETS: dict[str, Dataset] = {entry.name: entry for entry in _ENTRIES}
"""The catalogue, by name."""
