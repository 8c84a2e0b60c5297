"""The HTML reference of the tasks API, which `make up` writes."""

from pathlib import Path

import yaml
from playwright.sync_api import Browser, expect

from local.http.api_page import DOCUMENT, write_api_page


def test_the_page_shows_every_operation_without_network_requests(browser: Browser, tmp_path: Path) -> None:
    path = write_api_page(tmp_path)
    page = browser.new_page()
    requested: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))

    page.goto(path.as_uri())

    document = yaml.safe_load(DOCUMENT.read_text())
    operations = page.locator(".opblock")
    expect(operations).to_have_count(sum(map(len, document["paths"].values())))
    for tag in document["tags"]:
        expect(page.get_by_role("link", name=tag["name"], exact=True)).to_be_visible()
    operations.first.get_by_role("button").first.click()
    expect(operations.first).to_contain_text("Idempotency-Key")
    expect(page.get_by_role("button", name="Try it out")).to_have_count(0)
    assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
    assert problems == []
    page.close()
