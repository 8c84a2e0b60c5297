"""Callbacks of tasks whose outputs are not images, and their confirmation by the provider's record."""

from catchlight.models import Media, SkippedOutput
from tests.image_server import picture
from tests.integration.archiver import Archiver
from tests.integration.confirmation.reports import flux_record
from tests.integration.providers import FLUX_PATH, MARKET_PATH, Providers, json_response

PNG = picture("PNG")
MARKET = "kie-market#task12345"
VIDEO = SkippedOutput(media=Media.VIDEO, url="https://tempfile.aiquickdraw.com/a.mp4")


def test_images_in_the_record_correct_a_callback_without_images(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(skipped=(SkippedOutput(media=Media.TEXT),))
    providers.answers[FLUX_PATH] = flux_record(archiver.serve("a", PNG))

    assert archiver.run() == []

    item = archiver.item()
    assert (item["status"], archiver.states()) == ("ARCHIVED", ["ARCHIVED"])
    assert "skipped" not in item


def test_a_forged_image_of_a_video_task_is_not_fetched(archiver: Archiver, providers: Providers) -> None:
    archiver.succeed(archiver.serve("forged", PNG), task=MARKET)
    record = {"taskId": "task12345", "state": "success", "resultJson": f'{{"resultUrls": ["{VIDEO.url}"]}}'}
    providers.answers[MARKET_PATH] = json_response({"code": 200, "msg": "success", "data": record})

    assert archiver.run(MARKET) == []

    item = archiver.item(MARKET)
    assert (item["status"], item["skipped"]) == ("INCOMPLETE", [{"media": "video", "url": VIDEO.url}])
    assert "images" not in item
    assert len(item["conflicts"]) == 1
    assert archiver.server.requests == []


def test_a_video_that_the_provider_confirms_is_incomplete_and_confirmed(
    archiver: Archiver, providers: Providers
) -> None:
    archiver.succeed(skipped=(VIDEO,), task=MARKET)
    record = {"taskId": "task12345", "state": "success", "resultJson": {"resultUrls": [VIDEO.url]}}
    providers.answers[MARKET_PATH] = json_response({"code": 200, "msg": "success", "data": record})

    assert archiver.run(MARKET) == []

    item = archiver.item(MARKET)
    assert (item["status"], item["reportedBy"]) == ("INCOMPLETE", "callback")
    assert item["confirmedAt"]
    assert "conflicts" not in item
