"""Takes the picture of a report's page, from its head on: ``python docs/scripts/report_picture.py PAGE PICTURE``."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1280, 1120  # pixels

page_file, picture = map(Path, sys.argv[1:])
chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if chromium is None:
    sys.exit("error: no Chromium on the path: make browser installs it")
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
    page.goto(page_file.resolve().as_uri())
    page.wait_for_selector("svg, canvas")
    page.wait_for_timeout(1000)  # until all charts are drawn
    page.screenshot(path=picture)
    browser.close()
