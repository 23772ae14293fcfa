r"""The app in a process of its own, for tests and for its picture in the documentation.

python -m tests.helpers.running_app docs/images/app.png examples/images/child.png dark_skin \
    --weights=emoji32

writes a screenshot of the app with these flags. It shows a picture, and what the slider of an
attribute makes of it.
"""

import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from tests.helpers import browser
from tests.helpers.paths import ROOT

# The command, and on stderr a line for each connection that it opens.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
outgoing = ("socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, args: event in outgoing and print("WENT OUT", event, args[1:],
    file=sys.stderr, flush=True))
from dbae_jax import main
sys.argv = ["dbae", *sys.argv[1:]]
main.run()
"""
SHOWN = "return document.querySelector('#edited img')?.src"
SECONDS = 180  # for what takes a few on an idle machine
SLIDER = "input[type=range][aria-label*='Towards {}']"


def wait(found, what):
    """Returns the first true result of a function."""
    for _ in range(SECONDS * 10):
        if result := found():
            return result
        time.sleep(0.1)
    raise TimeoutError(f"there was no {what} after {SECONDS} seconds")


@contextlib.contextmanager
def started(log: pathlib.Path, *flags: str):
    """Starts the app; yields its process and its address. `log` gets what it says on stderr."""
    command = [sys.executable, "-c", PROGRAM, "app", "--port=0", *flags]
    with log.open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=err, stderr=err)
    try:
        address = wait(
            lambda: process.poll() is not None or re.search(r"Open (\S+) in a", log.read_text()),
            "address",
        )
        assert process.poll() is None, log.read_text()
        yield process, address[1]
    finally:
        process.kill()
        process.wait()


def upload(page, path, place=0):
    """Gives a file to the visible input for pictures, in place of what is there."""
    script = """return [...document.querySelectorAll('.input')].filter(e => e.offsetParent)
      [arguments[0]]"""
    field = page.execute_script(script, place)
    for button in field.find_elements("css selector", "button[aria-label='Clear']"):
        button.click()
    wait(lambda: field.find_elements("css selector", "input[type=file]"), "input")
    field.find_element("css selector", "input[type=file]").send_keys(str(path))


def _photograph(path: pathlib.Path, picture: str, attribute: str, *flags: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        browser.browser() as page,
        started(pathlib.Path(folder, "log"), *flags) as (_, address),
    ):
        browser.resize(page, 1200, 1000)
        browser.open_page(page, address)
        first = wait(lambda: page.execute_script(SHOWN), "picture")
        upload(page, pathlib.Path(picture).resolve())
        wait(lambda: page.execute_script(SHOWN) not in (None, first), "picture of the file")
        slider = SLIDER.format(attribute)
        page.find_elements("css selector", slider)[0].send_keys("\ue010")  # the end key
        moved = "return document.querySelector('#edited').innerText.includes('z moved by')"
        wait(lambda: page.execute_script(moved), "edit")
        time.sleep(1)  # until the progress of the edit is gone
        browser.resize(page, 1200, page.execute_script("return document.body.scrollHeight"))
        page.save_screenshot(str(path))


if __name__ == "__main__":
    _photograph(pathlib.Path(sys.argv[1]), *sys.argv[2:])
