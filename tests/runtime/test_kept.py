"""Kept files: valid files are read, invalid files are computed again, the same on all processes."""

import types

import numpy as np
import pytest

from dbae_jax.runtime import kept

IDENTITY = {"step": 1, "images": [3, "test"]}
CONTENT = {
    ".npz": {"values": np.arange(4), "names": np.array(["a", "ab"])},
    ".json": {"rows": [1, 2.5, None]},
}


@pytest.fixture(params=CONTENT)
def get(request, tmp_path):
    """Returns a function of an identity: how often the content was made so far."""
    content, made = CONTENT[request.param], []

    def make():
        made.append(content)
        return content

    def get(identity=IDENTITY):
        np.testing.assert_equal(kept.read_or_make(get.path, identity, make), content)
        return len(made)

    get.path = (tmp_path / "folder" / "file").with_suffix(request.param)
    return get


def test_a_valid_file_is_read(get):
    assert (get(), get(), get()) == (1, 1, 1)


def test_another_identity_is_made_again_and_named(get, caplog):
    get()
    with caplog.at_level("INFO", logger="dbae_jax"):
        assert get(IDENTITY | {"step": 2}) == 2 and get(IDENTITY | {"step": 2}) == 2
    assert caplog.messages == [
        f"{get.path} was computed with a different step; it is computed again."
    ]


@pytest.mark.parametrize("size", [0, 20, -20])
def test_a_damaged_file_is_made_again(get, size, caplog):
    get()
    get.path.write_bytes(get.path.read_bytes()[:size])
    with caplog.at_level("INFO", logger="dbae_jax"):
        assert get() == 2 and get() == 2
    assert "is damaged" in caplog.text


def test_a_file_of_another_kind_is_made_again(get):
    get()
    get.path.write_text('{"no": "identity"}')
    assert get() == 2 and get() == 2


def test_where_another_process_has_no_valid_file_all_make_it(get, monkeypatch):
    get()
    monkeypatch.setattr(kept, "processes", types.SimpleNamespace(agree=lambda value: value == 0))
    assert get() == 2
