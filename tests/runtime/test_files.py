"""Files that are written under a temporary name."""

import threading

import numpy as np
import pytest

from dbae_jax.errors import ConfigError
from dbae_jax.runtime import files


def test_two_writers_of_one_file_wait_for_each_other(tmp_path):
    """Locks of two opened files exclude each other in one process as they do in two."""
    path, errors = tmp_path / "file.npz", []
    values = [np.full(200_000, n) for n in range(4)]

    def write(n):
        try:
            for _ in range(20):
                files.write_npz(path, {"n": values[n]})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            found = np.load(path)["n"]
            assert len(found) == 200_000 and (found == found[0]).all()
    assert not errors and [file.name for file in tmp_path.iterdir()] == ["file.npz"]


def test_a_file_that_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / "file.txt.tmp").write_text("half of something longer")
    files.write_text(tmp_path / "file.txt", "whole")
    assert (tmp_path / "file.txt").read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_leaves_the_earlier_file(tmp_path):
    files.write_text(tmp_path / "file.json", "earlier")
    with pytest.raises(TypeError):
        files.write_npz(tmp_path / "file.json", {"n": np.zeros(2), 1: np.zeros(2)})
    assert (tmp_path / "file.json").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_refused_with_its_reason(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").mkdir()
    files.check_folder(tmp_path, "--out")  # a folder with the name of a file is no obstacle
    (tmp_path / "file").rmdir()
    (tmp_path / "file").touch()
    files.check_file(tmp_path / "new" / "report.html")
    for path, reason in (
        (tmp_path / "folder", f"{tmp_path}/folder is a folder"),
        (tmp_path / "file" / "report.html", f"{tmp_path}/file is a file"),
    ):
        with pytest.raises(ConfigError, match=f"{path} cannot be written: {reason}"):
            files.check_file(path)
    assert not (tmp_path / "new").exists()
