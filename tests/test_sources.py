"""Finding files in folders, zips and single files, and downloading them from the first honest mirror."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tfvae.data import sources
from tfvae.data.sources import Place
from tfvae.data.streams import reading
from tfvae.system.errors import InputError

CONTENT = b"the whole file" * 1_000
CHECKSUM = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Server(SimpleHTTPRequestHandler):
    """Serves a folder; `cut/…` promises the whole file and sends half of it."""

    def do_GET(self):
        if not self.path.startswith("/cut/"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    monkeypatch.setenv("TFVAE_CACHE", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    (served / "good.zip").write_bytes(CONTENT)
    (served / "wrong.zip").write_bytes(b"an error page")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=served)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_mirrors_are_tried_in_order_until_one_is_right(address, tmp_path):
    urls = [f"{address}/{name}.zip" for name in ("absent", "wrong", "cut/good", "good")]
    path = sources.download(urls, CHECKSUM, "set.zip")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["set.zip"]


def test_a_downloaded_file_is_not_downloaded_again(address):
    path = sources.download([f"{address}/good.zip"], CHECKSUM, "set.zip")
    assert sources.download(["http://127.0.0.1:1/none"], CHECKSUM, "set.zip") == path


@pytest.mark.parametrize(("name", "reason"), [("wrong", "hash"), ("cut/good", ""), ("absent", "404")])
def test_a_failed_download_says_why_and_leaves_nothing(name, reason, address, tmp_path):
    with pytest.raises(InputError, match=f"set.zip could not be downloaded(.|\n)*{name}.zip: .*{reason}"):
        sources.download([f"{address}/{name}.zip"], CHECKSUM, "set.zip")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_single_file_comes_before_its_neighbours(tmp_path):
    for name in ("ratings.csv", "ratings.dat", "movies.dat"):
        (tmp_path / name).write_text("")
    place = Place(tmp_path / "ratings.csv")
    assert place.find("ratings.dat", "ratings.csv").name == "ratings.csv"
    assert place.find("movies.dat").name == "movies.dat"
    assert not place.holds(["movies.dat"])


def test_zip_members_are_found_and_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("ml/ratings.dat", "1::2::3::4\n")
        archive.writestr("__MACOSX/ml/ratings.dat", "junk")
    member = Place(tmp_path / "set.zip").find("ratings.dat")
    with reading(member) as file:
        assert file.read() == b"1::2::3::4\n"


def test_a_damaged_zip_and_an_absent_source_are_input_errors(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(InputError, match="not a whole zip file"):
        Place(tmp_path / "set.zip")
    with pytest.raises(InputError, match="no such file or folder"):
        Place(tmp_path / "none")


def test_a_data_sets_own_folder_comes_before_files_of_another(tmp_path):
    (tmp_path / "ml-1m").mkdir()
    for file in (tmp_path / "ml-1m" / "ratings.csv.xz", tmp_path / "ratings.csv"):
        file.write_text("")
    assert sources.look_in(tmp_path, ["ml-1m"], ["ratings.csv"]).find("ratings.csv").suffix == ".xz"
    assert sources.look_in(tmp_path, ["ml-20m"], ["ratings.csv"]).find("ratings.csv").suffix == ".csv"
    (tmp_path / "ratings.csv").unlink()
    assert sources.look_in(tmp_path, ["ml-20m"], ["ratings.csv"]) is None


def test_tfvae_data_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("TFVAE_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match="TFVAE_DATA=.*no such folder"):
        sources.data_folder()
    monkeypatch.delenv("TFVAE_DATA")
    assert sources.data_folder() is None
