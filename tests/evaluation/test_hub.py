"""The released sets, from a server of our own in place of the hub."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from lm2.evaluation.hub import REPOSITORIES, HubBabilong

ROWS = [
    {"input": f"Mary went to the {place}. Some book.", "question": "Where is Mary? ", "target": place}
    for place in ("office", "kitchen")
]
CONTENT = json.dumps(ROWS * 2000).encode()


class Hub(BaseHTTPRequestHandler):
    """Has data/qa1/1k.json; `broken` sends half of it and hangs up."""

    broken = False

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        if not self.path.endswith("data/qa1/1k.json"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", '"' + "b" * 40 + '"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if body:
            self.wfile.write(CONTENT[start : start + 1000] if type(self).broken else CONTENT[start:])
            self.close_connection = True


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache and a server; returns the handler class, whose `broken` can be set."""
    from huggingface_hub import constants, file_download

    handler = type("OneHub", (Hub,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    yield handler
    server.shutdown()
    server.server_close()


def test_released_samples_are_fetched_once_and_read(hub, monkeypatch):
    source = HubBabilong(REPOSITORIES[100])
    samples = list(source.samples("qa1", "1k"))
    assert len(samples) == 4000
    assert [sample.index for sample in samples[:2]] == [0, 1]
    assert (samples[1].question, samples[1].target) == ("Where is Mary? ", "kitchen")
    assert samples[1].context() == "Mary went to the kitchen. Some book."
    assert samples[1].facts == ()
    hub.broken = True  # the second reading asks for no content
    assert len(list(source.samples("qa1", "1k"))) == 4000


def test_an_interrupted_download_is_one_sentence_and_leaves_no_file(hub, tmp_path):
    hub.broken = True
    source = HubBabilong()
    with pytest.raises(ValueError, match=r"data/qa1/1k\.json of RMT-team/babilong was not fetched whole \(.*run again"):
        next(source.samples("qa1", "1k"))
    assert not list(tmp_path.rglob("*.json"))
    hub.broken = False
    assert len(list(source.samples("qa1", "1k"))) == 4000


def test_a_cell_that_was_not_released_is_named(hub):
    with pytest.raises(ValueError, match=r"has no data/qa6/64k\.json: not every task was released at every length"):
        next(HubBabilong(REPOSITORIES[1000]).samples("qa6", "64k"))


def test_a_folder_with_the_same_files_is_read(tmp_path):
    (tmp_path / "data" / "qa2").mkdir(parents=True)
    (tmp_path / "data" / "qa2" / "4k.json").write_text(json.dumps(ROWS))
    source = HubBabilong(str(tmp_path))
    assert [sample.target for sample in source.samples("qa2", "4k")] == ["office", "kitchen"]
    with pytest.raises(ValueError, match=r"has no data/qa2/8k\.json"):
        next(source.samples("qa2", "8k"))


@pytest.mark.parametrize("row", [{"input": "x", "question": "y"}, {"input": 1, "question": "y", "target": "z"}])
def test_a_row_without_its_fields_is_named(tmp_path, row):
    (tmp_path / "data" / "qa2").mkdir(parents=True)
    (tmp_path / "data" / "qa2" / "4k.json").write_text(json.dumps([*ROWS, row]))
    with pytest.raises(ValueError, match=r"4k\.json, sample 3: a released sample has input, question and target"):
        list(HubBabilong(str(tmp_path)).samples("qa2", "4k"))


@pytest.mark.parametrize("text", ["", "[]"])
def test_a_file_without_samples_is_named(tmp_path, text):
    """Else its cell would be missing in the report, and a report of no cell cannot be made."""
    (tmp_path / "data" / "qa2").mkdir(parents=True)
    (tmp_path / "data" / "qa2" / "4k.json").write_text(text)
    with pytest.raises(ValueError, match=r"4k\.json holds 0 samples: fetch the file anew"):
        list(HubBabilong(str(tmp_path)).samples("qa2", "4k"))


def test_unknown_cells_are_refused_before_anything_is_fetched(hub):
    with pytest.raises(ValueError, match="task 'qa0'"):
        next(HubBabilong().samples("qa0", "1k"))
    with pytest.raises(ValueError, match="length '1'"):
        next(HubBabilong().samples("qa1", "1"))
