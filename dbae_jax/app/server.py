"""Serves the page of the app to browsers. It loads nothing from elsewhere."""

import json
import logging
import os
import socket
import tempfile

import fastapi
import gradio as gr
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dbae_jax.api.dbae import DBAE
from dbae_jax.app import page, pictures
from dbae_jax.data.sources import Source

# What browsers may load: this server's own files, and data in the page itself.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; form-action 'self'"
)
MOST_BYTES_OF_A_CALL = 2**20  # of JSON; files are uploaded before
REFUSED = "The app reads files that were uploaded to it, and nothing from other servers.\n"
SECONDS_TO_CLOSE = 1  # for open connections after Ctrl-C

log = logging.getLogger(__name__)


def serve(model: DBAE, source: Source | None, listener: socket.socket, address: str) -> None:
    """Serves the page of a model until Ctrl-C.

    Args:
      model: a trained model.
      source: test images that a visitor can choose from, or None.
      listener: the socket that listens.
      address: URL of the page, for the log.
    """
    with tempfile.TemporaryDirectory(prefix="dbae_jax-app-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads  # gradio asks for it at each upload
        app = gr.mount_gradio_app(
            fastapi.FastAPI(openapi_url=None),
            page.make_page(model, source),
            path="/",
            footer_links=[],
            max_file_size=pictures.MOST_BYTES,
            ssr_mode=False,
            theme=page.theme(),
            css_paths=page.STYLE,
        )
        config = uvicorn.Config(
            _OwnPageOnly(app),
            log_level="critical",
            timeout_graceful_shutdown=SECONDS_TO_CLOSE,
        )
        _Server(config, address).run([listener])


class _Server(uvicorn.Server):
    """A server that says its address when a browser can open it."""

    def __init__(self, config: uvicorn.Config, address: str):
        super().__init__(config)
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log.info("Open %s in a browser. Ctrl-C ends the app.", self._address)


class _OwnPageOnly:
    """Forbids browsers to load anything from other servers, and this server to do so for them.

    gradio would download a file whose "path" is an address, whatever its size.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        is_call = scope["type"] == "http" and scope["method"] == "POST"
        if is_call and not scope["path"].rstrip("/").endswith("/upload"):
            body = await _body(receive)
            if body is None or _names_address(body):
                await PlainTextResponse(REFUSED, 400)(scope, receive, send_with_policy)
                return
            receive = _replayed(body, receive)
        await self._app(scope, receive, send_with_policy)


async def _body(receive: Receive) -> bytes | None:
    """Returns the body of a request, or None if it is too large for a call of the page."""
    body, more = b"", True
    while more and len(body) <= MOST_BYTES_OF_A_CALL:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return None if len(body) > MOST_BYTES_OF_A_CALL else body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Returns a function that gives the body, and then what follows it."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return parts.pop() if parts else await receive()

    return replay


def _names_address(body: bytes) -> bool:
    """Returns whether a JSON text has a "path" that is an address such as http://..."""
    try:
        waiting = [json.loads(body or b"null")]
    except ValueError:
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "://" in str(value.get("path", "")):
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False
