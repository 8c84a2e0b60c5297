"""Tests that generated plans are repeatable, contain all faults, and produce valid callbacks and images."""

import io
import json
from datetime import UTC, datetime

import pytest
from PIL import Image

from catchlight.images.formats import read_image_metadata
from catchlight.providers import PROVIDERS
from tests.searches.soak.bodies import callback_body
from tests.searches.soak.images import image_bytes
from tests.searches.soak.planning import deliveries_by_fault, plan_task, plan_tasks
from tests.searches.soak.plans import (
    CallbackFault,
    Cut,
    ImageFault,
    PollFault,
    Registration,
)
from tests.searches.soak.reported_state import ReportedState

PLANS = plan_tasks(seed=1, count=2000)


def test_the_same_seed_plans_the_same_tasks() -> None:
    assert plan_tasks(seed=1, count=50) == PLANS[:50]
    assert plan_tasks(seed=2, count=50) != PLANS[:50]


def test_a_plan_does_not_depend_on_the_number_of_tasks() -> None:
    assert plan_task(1, 1234) == PLANS[1234]


@pytest.mark.parametrize("seed", range(5))
def test_at_least_a_fifth_of_the_deliveries_has_a_fault(seed: int) -> None:
    counts = deliveries_by_fault(plan_tasks(seed, 500))

    assert counts[CallbackFault.NONE] / sum(counts.values()) < 0.8


def test_every_kind_of_fault_is_planned() -> None:
    assert all(deliveries_by_fault(PLANS).values())
    assert {plan.registration for plan in PLANS} == set(Registration)
    assert {plan.expected_status for plan in PLANS} == {"ARCHIVED", "INCOMPLETE", "UNCONFIRMED", "FAILED", "TIMED_OUT"}
    assert {image.fault for plan in PLANS for image in plan.images} == set(ImageFault)
    assert {fault for plan in PLANS for fault in plan.poll_faults} == set(PollFault)
    assert {callback.cut for plan in PLANS for callback in plan.callbacks} == {*Cut, None}
    assert any(plan.forgery for plan in PLANS)
    assert any(plan.is_oversized for plan in PLANS)
    assert any(plan.is_provider_out for plan in PLANS)


def test_callbacks_in_the_providers_formats_have_the_planned_reports() -> None:
    for plan in PLANS[:300]:
        for callback in plan.callbacks:
            body = callback_body(
                plan.provider,
                plan.task_id,
                callback.reported,
                "http://127.0.0.1:1",
                is_record_shaped=plan.is_record_shaped,
            )
            report = PROVIDERS[plan.provider].parse_callback(
                json.loads(json.dumps(body)), received_at=datetime.now(UTC)
            )
            reason = report.failure.reason.value if report.failure else None
            assert report.task == plan.task
            assert (
                ReportedState.of_urls(report.status.value, [image.url for image in report.images], reason)
                == callback.reported
            )


def test_images_are_valid_and_unique() -> None:
    images = [image for plan in PLANS for image in plan.images]
    contents = [image_bytes(image) for image in images]

    assert len(set(contents)) == len(images) > 2000
    for image, content in list(zip(images, contents, strict=True))[:100]:
        facts = read_image_metadata(io.BytesIO(content), len(content))
        opened = Image.open(io.BytesIO(content))
        opened.load()
        assert (opened.format, opened.size) == (image.format, (facts.width, facts.height))
