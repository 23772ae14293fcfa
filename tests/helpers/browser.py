"""A browser for tests of pages, with its network log on."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Opens a browser without a window; skips the test where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="the extra `test` has selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium-driver)")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            *("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"),
            *("disable-background-networking", "disable-component-update", "disable-sync"),
            *(f"user-data-dir={profile}", "window-size=1200,900"),
        ):
            options.add_argument(f"--{flag}")
        service = selenium.ChromeService(executable_path=programs[1])
        driver = selenium.Chrome(options=options, service=service)
        yield driver
        driver.quit()


def open_page(driver: Any, url: str) -> None:
    """Opens a page; the network log then holds the requests of this page alone."""
    driver.get("about:blank")
    driver.get_log("performance")
    driver.get(url)


def requested(driver: Any) -> list[str]:
    """Returns the URLs that the page has asked for since the last call."""
    events = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def resize(driver: Any, width: int, height: int, *, dark: bool = False) -> None:
    """Shows the page as a screen of this size does, and in light or dark colours."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
