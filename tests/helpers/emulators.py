"""Emulators of object stores on 127.0.0.1, for tests: one for gs://, one for s3://."""

import importlib.util
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from tests.helpers.paths import ROOT

BUCKET = "bucket"
NEEDED = {"gs": ("gcsfs", "gcp_storage_emulator"), "s3": ("s3fs", "moto")}
PATIENCE_SECONDS = 60


def missing(scheme: str) -> str:
    """Returns the names of the packages that are missing, "" if none is."""
    return ", ".join(name for name in NEEDED[scheme] if importlib.util.find_spec(name) is None)


class Emulator:
    """A running store with one bucket.

    Attributes:
      environment: variables that lead the libraries to the store.
    """

    def __init__(self, scheme: str):
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = {
            "gs": ["-m", "tests.helpers.gcs_emulator", str(port), BUCKET],
            "s3": ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        }[scheme]
        self.environment = {
            "gs": {
                "STORAGE_EMULATOR_HOST": self.url,
                "TENSORSTORE_GCS_HTTP_URL": self.url,
                "GOOGLE_CLOUD_PROJECT": "project",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks the real store
            },
            "s3": {
                "AWS_ENDPOINT_URL": self.url,
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        }[scheme]
        self._folder = tempfile.TemporaryDirectory()
        self._log = pathlib.Path(self._folder.name, "log")
        with self._log.open("w") as log:
            command = [sys.executable, *command]
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self._wait(port)
        if scheme == "s3":
            request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()

    def _wait(self, port: int) -> None:
        begun = time.monotonic()
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                self._must_run()
                assert time.monotonic() - begun < PATIENCE_SECONDS, "the emulator does not answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends the store; an error if it has ended before, which explains failures of the tests."""
        try:
            self._must_run()
        finally:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()

    def _must_run(self) -> None:
        said = self._log.read_text()[-2000:]
        assert self._process.poll() is None, f"the emulator ended ({self._process.poll()}): {said}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
