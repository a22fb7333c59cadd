"""JupyterLab in a headless Chromium, driven by the DevTools protocol."""

import json
import os
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
import websocket

from helpers.waiting import await_true
from infscale.deployment.processes.ports import free_ports

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")

QUIET = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}
"""Settings of JupyterLab, which would ask whether it may fetch news."""


class Page:
    """A page of a browser."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, suppress_origin=True, timeout=120)
        self._sent = 0

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the DevTools protocol and return its result."""
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._sent:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def js(self, code: str) -> Any:
        """Return the value of an expression of JavaScript; None while the page cannot say."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def picture(self, file: Path) -> None:
        """Write a screenshot (PNG)."""
        file.write_bytes(b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Notebook:
    """The notebook that is open in a page of JupyterLab."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def command(self, name: str) -> None:
        """Execute one of JupyterLab's commands, without waiting for its end."""
        self.page.js(f"void jupyterapp.commands.execute({name!r})")

    def idle(self) -> bool:
        """Return whether the kernel has nothing to do."""
        kernel = "jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status"
        return bool(self.page.js(f"globalThis.jupyterapp && {kernel}") == "idle")

    def outputs(self) -> list[list[dict[str, Any]]]:
        """Return the outputs of each cell, as a notebook's file holds them."""
        code = (
            "(() => {const cells = jupyterapp.shell.currentWidget.content.model.cells;"
            "return JSON.stringify([...Array(cells.length).keys()].map(k => cells.get(k).outputs?.toJSON() ?? []))})()"
        )
        found: list[list[dict[str, Any]]] = json.loads(self.page.js(code))
        return found

    def ran(self) -> bool:
        """Return whether every cell of code was executed, and the kernel has nothing to do."""
        code = (
            "(() => {const cells = jupyterapp.shell.currentWidget.content.model.cells;"
            "return [...Array(cells.length).keys()].every(k => cells.get(k).type !== 'code' ||"
            " cells.get(k).executionCount !== null)})()"
        )
        return bool(self.page.js(code)) and self.idle()

    def run(self, source: str) -> None:
        """Execute code in a new cell at the end, which is scrolled to."""
        self.page.js(
            "(async () => {const n = jupyterapp.shell.currentWidget.content; n.activeCellIndex = n.widgets.length - 1;"
            "await jupyterapp.commands.execute('notebook:insert-cell-below');"
            f"n.activeCell.model.sharedModel.setSource({source!r});"
            "await n.scrollToItem(n.activeCellIndex); void jupyterapp.commands.execute('notebook:run-cell')})()"
        )

    def text(self, selector: str) -> str:
        """Return the text of the last element that a CSS selector finds; "" for none."""
        return str(self.page.js(f"[...document.querySelectorAll({selector!r})].at(-1)?.innerText ?? ''"))


@contextmanager
def lab(folder: Path, notebook: str) -> Iterator[Notebook]:
    """Open a notebook of a folder in JupyterLab, and yield it when its kernel is ready."""
    (port,) = free_ports(1)
    for name, settings in QUIET.items():
        file = folder / ".settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    own = {f"JUPYTER_{what}_DIR": str(folder / f".{what.lower()}") for what in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / ".spaces")}
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", f"--ServerApp.root_dir={folder}"]
    options += [f"--ServerApp.port={port}", "--IdentityProvider.token="]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options],
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "server.txt").open("w"),
        cwd=folder,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await_true(lambda: _answers(f"{url}/api"), 120, alive=lambda: server.poll() is None)
        with _browser(folder / ".browser", f"{url}/lab/tree/{notebook}") as page:
            opened = Notebook(page)
            await_true(opened.idle, 180)
            yield opened
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    with suppress(requests.RequestException):
        return bool(requests.get(url, timeout=5).ok)
    return False


@contextmanager
def _browser(profile: Path, url: str) -> Iterator[Page]:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    options += [f"--user-data-dir={profile}", "--window-size=1280,1000", "--disable-dev-shm-usage"]
    process = subprocess.Popen([CHROMIUM, *options, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = profile / "DevToolsActivePort"
        await_true(lambda: told.exists() and told.read_text().count("\n"), 60, alive=lambda: process.poll() is None)
        list_ = f"http://127.0.0.1:{told.read_text().split()[0]}/json/list"
        await_true(lambda: _pages(list_))
        page = Page(_pages(list_)[0])
        try:
            yield page
        finally:
            page.close()
    finally:
        process.terminate()
        process.wait(60)


def _pages(url: str) -> list[str]:
    pages = requests.get(url, timeout=10).json()
    return [one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page"]
