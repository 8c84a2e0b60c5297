"""Task ids, prompts and other texts of providers are displayed as text, never as markup or code."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

from catchlight.api.response_models import TaskResponse
from catchlight.models import TaskStatus
from tests.browser.conftest import Visit, Visitor, visiting
from tests.hostile.strings import STRINGS
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, an_image

HOSTILE = {
    "an image": "<img src=x onerror=\"window.hacked = 'image'\">",
    "a script": "</script><script>window.hacked = 'script'</script>",
    "a style": "</style><style>*{display:none!important}</style>",
    "an attribute": '" onmouseover="window.hacked=\'attribute\'" autofocus onfocus="window.hacked=\'focus\'" x="',
    "a template": "{{constructor.constructor('window.hacked=1')()}} ${window.hacked=1} <%= 1 %>",
    "a link": "javascript:window.hacked='link'//",
    "a comment": "<!-- --><svg onload=window.hacked=1><!-- ",
    "an entity": "&lt;b&gt; &#x3c;script&#x3e; &nbsp;",
    "a path traversal": "../../../../etc/passwd?x=1#/../..",
    "a prototype": "__proto__",
    "a property": "constructor",
    "a percent": "100%zz%2F%00",
    "right to left": "\u202e\u2066gpj.exe\u202c then\u2069 \u05e9\u05dc\u05d5\u05dd",
    "controls": "a\u0000b\u0007c\u001bd\u2028e\ufeff",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "very long": "W" * 20_000,
    "many lines": "line\n" * 3000,
    "zalgo": "Z\u0351\u0343\u033b\u032a" * 400,
}


# Characters that JavaScript's encodeURIComponent does not encode.
_NOT_ENCODED_BY_JAVASCRIPT = "!'()*~"


def a_hostile_task(text: str, number: int) -> TaskResponse:
    at = datetime.now(UTC)
    request: dict[str, Any] = {"prompt": text, "model": text, text[:60]: text, "nested": {text[:60]: [text]}}
    conflict: dict[str, Any] = {"reportedBy": "callback", "reportedAt": text[:40], "status": "FAILED", "urls": [text]}
    conflict["failure"] = {"reason": "OTHER", "code": text, "message": text}
    failure = {"reason": "OTHER", "code": text, "message": text}
    lost = a_lost_image("t").model_copy(update={"reason": text, "url": text, "expires_at": text})
    image = an_image("t", b"", index=1).model_copy(
        update={"key": text, "content_type": text, "sha256": text, "archived_at": text}
    )
    return a_task(
        f"{text}{number}",
        TaskStatus.INCOMPLETE,
        arrived_at=at,
        request=request,
        failure=failure,
        conflicts=[conflict],
        images=[lost, image],
        idempotency_key=text,
        confirmed_at=text[:40],
    )


@pytest.fixture(scope="module")
def gallery(browser: Browser) -> Iterator[Visitor]:
    """One page with a task for each text."""
    tasks = [a_hostile_task(text, number) for number, text in enumerate(HOSTILE.values())]
    viewport = {"width": 1000, "height": 800}
    with visiting(browser, TasksApiInMemory([*tasks, a_task("good")]), viewport=viewport) as visitor:
        visitor.allowed_errors += ["502", "404"]  # the images are missing
        visitor.open()
        assert visitor.page.locator(".card").count() == len(HOSTILE) + 1
        yield visitor


@pytest.mark.parametrize(("number", "text"), [*enumerate(HOSTILE.values())], ids=HOSTILE.keys())
def test_hostile_text_is_displayed_as_text(gallery: Visitor, number: int, text: str) -> None:
    page, task = gallery.page, a_hostile_task(text, number)
    address = f"#flux-kontext/{quote(task.task_id, safe=_NOT_ENCODED_BY_JAVASCRIPT)}"
    card = page.locator(".card", has=page.locator(f'a[href="{address}"]'))
    # The displayed text equals the text sent, except for changes by JSON and the DOM.
    text_content = "(element) => element.textContent"
    assert card.locator(".id").evaluate(text_content) == task.task_id
    assert card.locator(".prompt").evaluate(text_content) == text
    assert task.task_id in (card.locator("a").get_attribute("aria-label") or "")
    card.locator("a").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert dialog.locator(".request-prompt").evaluate(text_content) == text
    assert text in dialog.locator(".failure").evaluate(text_content)
    assert dialog.locator("h2").evaluate(text_content) == f"Incomplete{task.task_id}"
    # No text became an element, a link to another site, or a script.
    assert page.locator("script:not([src='gallery.js'])").count() == 0
    assert page.locator("style, iframe, object, embed, base, meta[http-equiv], form form").count() == 0
    sources = page.eval_on_selector_all("img, a[href]", "(all) => all.map((one) => one.src || one.href)")
    assert all(source.startswith(gallery.gallery.url) for source in sources)
    assert (
        page.evaluate(
            "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
            ".filter((name) => name.startsWith('on'))"
        )
        == []
    )
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("Object.keys(Object.prototype)") == []
    # No text exceeds the space of its element.
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert dialog.evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
    assert dialog.locator(".details").evaluate("(details) => details.scrollWidth <= details.clientWidth")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    card.scroll_into_view_if_needed()
    box, good = card.bounding_box(), page.locator(".card", has=page.locator(".id:text-is('good')")).bounding_box()
    assert box is not None
    assert good is not None
    assert (round(box["height"]), round(box["width"])) == (round(good["height"]), round(good["width"]))


def test_no_hostile_string_is_interpreted_as_markup_or_code(visit: Visit) -> None:
    """The strings are those of the tests of terminals and logs."""
    texts = [text.encode(errors="replace").decode() for text in STRINGS]
    visitor = visit(TasksApiInMemory(a_hostile_task(text, number) for number, text in enumerate(texts)))
    visitor.allowed_errors += ["502", "404", "400"]  # the images are missing
    page = visitor.open()
    expect(page.locator(".card")).to_have_count(len(texts))
    prompts = page.eval_on_selector_all(".card .prompt", "(all) => all.map((one) => one.textContent)")
    assert sorted(prompts) == sorted(texts)
    for card in page.locator(".card a").all()[::6]:
        card.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")

    assert page.evaluate("window.hacked") is None
    assert page.evaluate("Object.keys(Object.prototype)") == []
    assert page.locator("script:not([src='gallery.js'])").count() == 0
    sources = page.eval_on_selector_all("img, a[href]", "(all) => all.map((one) => one.src || one.href)")
    assert all(source.startswith(visitor.gallery.url) for source in sources)


def test_bidirectional_text_does_not_affect_its_surroundings(visit: Visit) -> None:
    text = HOSTILE["right to left"]
    visitor = visit(TasksApiInMemory([a_hostile_task(text, 1)]))
    visitor.allowed_errors.append("502")  # the image is missing
    page = visitor.open()
    for selector in (".card .id", ".card .prompt"):
        assert page.locator(selector).evaluate("(one) => getComputedStyle(one).unicodeBidi") in (
            "isolate",
            "isolate-override",
        )
    provider, status = page.locator(".card .provider"), page.locator(".card .status")
    left, right = provider.bounding_box(), page.locator(".card .id").bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] < right["x"]
    expect(status).to_have_text("Incomplete")


def test_hostile_text_in_the_address_is_not_interpreted(visit: Visit) -> None:
    visitor = visit(TasksApiInMemory([a_task("good")]))
    visitor.allowed_errors += ["404", "400", "502"]
    for text in (
        "#%",
        "#a/%E0%A4%A",
        "#<img src=x onerror=alert(1)>/x",
        "#//",
        "#a/b/c/d",
        "?status=<b>&provider=%00&q=%22%3E<script>",
    ):
        page = visitor.open(text)
        assert page.evaluate("window.hacked") is None
        expect(page.get_by_role("heading", name="Catchlight")).to_be_visible()
