"""Runs gcp-storage-emulator with what tensorstore needs and it lacks: generations of objects.

    python -m tests.helpers.gcs_emulator PORT BUCKET

The real store says the generation of an object that it sends, answers 412 to a write whose
`ifGenerationMatch` is not the current generation (0: no object), and 304 to a read whose
`ifGenerationNotMatch` is.
"""

import re
import sys
from urllib import parse

from gcp_storage_emulator import exceptions, server

NAME = re.compile(r".*/b/([^/]+)/o(?:/([^/]+))?")


def _generation(storage, path, query):
    """Returns the generation of the object that a request is about, "0" if there is none."""
    found = NAME.fullmatch(path)
    name = found and (found[2] or query.get("name", [""])[0])
    if not name:
        return "0"
    try:
        return storage.get_file_obj(found[1], parse.unquote(name))["generation"]
    except exceptions.NotFound:
        return "0"


class Router(server.Router):
    """Answers requests whose precondition does not hold, and adds generations to the others."""

    def handle(self, method):
        handler = self._request_handler
        url = parse.urlparse(handler.path)
        query = parse.parse_qs(url.query)
        handler.generation = _generation(handler.storage, url.path, query)
        unless, only = (
            query.get(name, [None])[0] for name in ("ifGenerationNotMatch", "ifGenerationMatch")
        )
        if unless == handler.generation or only not in (None, handler.generation):
            handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
            handler.send_response(304 if method == server.GET else 412)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        super().handle(method)


class Response(server.Response):
    """Says the generation of the object that it sends."""

    def close(self):
        if self._handler.command == "GET":
            self["x-goog-generation"] = self._handler.generation
        super().close()


def main(port, bucket):
    """Serves until it is killed."""
    server.Router, server.Response = Router, Response
    server.create_server("127.0.0.1", int(port), in_memory=True, default_bucket=bucket).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
