"""A headless Chromium for pages that are opened from disk: what goes wrong on a page is an error of its test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
LOCAL = ("file:", "data:", "blob:", "about:")


def executable() -> str:
    """Of Chromium; the test is skipped where there is none, and fails where it must not be skipped."""
    named = os.environ.get("CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"no Chromium: {', '.join(names)} is not there; install one, or say where it is in $CHROMIUM"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Opened(NamedTuple):
    """A page, and what went wrong on it so far: errors in its console, dialogs, requests to a network."""

    page: Page
    wrong: list[str]


@contextmanager
def opened(browser: Browser, file: Path, where: str = "", *, width: int = 1440, **context: Any) -> Iterator[Opened]:
    """A page of that file, at `where` ("#…"); nothing must have gone wrong on it at the end."""
    wrong: list[str] = []
    options: Any = {"viewport": {"width": width, "height": 900}} | context
    around = browser.new_context(**options)
    page = around.new_page()

    def refuse(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.set_default_timeout(60_000)  # for machines that are busy with other things
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(LOCAL) else wrong.append(f"request to {asked.url}"))
    page.on("dialog", refuse)
    try:
        page.goto(file.as_uri() + where)
        yield Opened(page, wrong)
    finally:
        around.close()
    assert not wrong
