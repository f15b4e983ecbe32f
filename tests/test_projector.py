"""TensorBoard's projector: its rows are items with their titles, whatever stands in them, and no file is lost."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from tfvae.data.items import Items
from tfvae.training.event_log import EventLog
from tfvae.training.projector import MOST_ITEMS, remove_projector, write_projector


class Vectors:
    """A model whose item i has the vector [i, -i]."""

    name = "vectors"

    def __init__(self, n_items):
        self.n_items = n_items

    def item_vectors(self):
        return tf.stack([tf.range(self.n_items, dtype=tf.float32), -tf.range(self.n_items, dtype=tf.float32)], axis=1)


def items_of(n_users, titles=None, ids=None):
    n_users = np.asarray(n_users)
    return Items(np.arange(len(n_users)) if ids is None else np.asarray(ids), titles, None, n_users)


def shown_in(folder):
    """The projector's vectors, and the cells of its metadata with the header first, as TensorBoard finds them."""
    with EventLog(folder) as events:  # TensorBoard lists folders with events
        events.begin([])
    plugin = ProjectorPlugin(TBContext(logdir=str(folder), multiplexer=EventMultiplexer({".": str(folder)}).Reload()))
    apps = plugin.get_plugin_apps()
    (info,) = json.loads(Client(apps["/info"]).get("/?run=.").data)["embeddings"]
    query = f"/?run=.&name={info['tensorName']}"
    vectors = np.frombuffer(Client(apps["/tensor"]).get(query).data, np.float32).reshape(info["tensorShape"])
    text = Client(apps["/metadata"]).get(query).get_data(as_text=True)
    return vectors, [line.split("\t") for line in text.removesuffix("\n").split("\n")]


def test_projector_rows_match_titles_whatever_stands_in_them(tmp_path):
    titles = np.array(["Tab\tbed", "Two\r\nlines", "", "Café 東京", "\u2028sep\x85"])
    assert write_projector(tmp_path, Vectors(5), items_of([1, 5, 3, 5, 2], titles, list("abcde"))) == 5
    vectors, lines = shown_in(tmp_path)
    np.testing.assert_array_equal(vectors, [[1, -1], [3, -3], [2, -2], [4, -4], [0, 0]])
    assert lines == [
        ["title", "id", "users"],
        *(["Two lines", "b", "5"], ["Café 東京", "d", "5"], ["c", "c", "3"], ["sep", "e", "2"], ["Tab bed", "a", "1"]),
    ]


def test_items_without_titles_have_their_ids(tmp_path):
    write_projector(tmp_path, Vectors(2), items_of([1, 2]))
    assert shown_in(tmp_path)[1] == [["id", "users"], ["1", "2"], ["0", "1"]]


def test_only_the_most_used_items_are_shown(tmp_path):
    n_items = MOST_ITEMS + 3
    assert write_projector(tmp_path, Vectors(n_items), items_of(np.arange(n_items))) == MOST_ITEMS
    lines = (tmp_path / "metadata.tsv").read_text().splitlines()
    assert len(lines) == MOST_ITEMS + 1 and (lines[1], lines[-1]) == (f"{n_items - 1}\t{n_items - 1}", "3\t3")


def test_a_projector_of_the_users_own_is_left_alone(tmp_path):
    for name in ("checkpoint", "projector_config.pbtxt"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("my own")
        assert write_projector(folder, Vectors(2), items_of([1, 2])) == 0
        remove_projector(folder)
        assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "my own")]
