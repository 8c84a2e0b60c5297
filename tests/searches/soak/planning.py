"""Generates the plans of a soak test's tasks: the same seed and number give the same plan."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import TypeVar

from tests.searches.soak.plans import (
    ACEDATA,
    FLUX_KONTEXT,
    NANOBANANA,
    REASONS,
    CallbackFault,
    CallbackPlan,
    Cut,
    ImageFault,
    ImagePlan,
    PollFault,
    Registration,
    TaskPlan,
)
from tests.searches.soak.reported_state import RUNNING, ReportedState

T = TypeVar("T")
NOT_STREAMED_SHARE = 0.01
# One of this number of tasks is oversized: each of its tries kills a process, about three times a minute.
OVERSIZED_EVERY, OVERSIZED_OFFSET = 2500, 77
# One of this number of tasks has a provider outage that lasts longer than polling takes, unless its polls also cover
# other tasks.
PROVIDER_OUT_EVERY, PROVIDER_OUT_OFFSET = 25, 9


def plan_tasks(seed: int, count: int) -> list[TaskPlan]:
    """Returns the plans of a run."""
    return [plan_task(seed, number) for number in range(count)]


def plan_task(seed: int, number: int) -> TaskPlan:
    """Returns one task's plan, which depends only on these two numbers."""
    rng = random.Random(f"{seed}/{number}")
    provider = _one_of(rng, {FLUX_KONTEXT: 5, NANOBANANA: 3, ACEDATA: 2})
    digest = blake2b(f"{seed}/{number}".encode(), digest_size=16).hexdigest()
    task_id = str(uuid.UUID(digest)) if provider == ACEDATA else digest
    is_oversized = number % OVERSIZED_EVERY == OVERSIZED_OFFSET
    status = _one_of(rng, {"SUCCEEDED": 86, "FAILED": 12, "PENDING": 2})
    if is_oversized:
        status = "SUCCEEDED"
    images = _images(rng, provider, task_id) if status == "SUCCEEDED" else ()
    provider_outcome = {
        "SUCCEEDED": ReportedState("SUCCEEDED", tuple(image.path for image in images)),
        "FAILED": ReportedState("FAILED", reason=rng.choice(REASONS)),
        "PENDING": RUNNING,
    }[status]
    callbacks = _callbacks(rng, provider_outcome, provider, task_id)
    # A task without a registration and without a callback would never reach the stack.
    may_be_unregistered = any(plan.at for plan in callbacks)
    registration = _one_of(
        rng, {Registration.FIRST: 80, Registration.LATE: 12, Registration.NEVER: 8 if may_be_unregistered else 0}
    )
    plan = TaskPlan(
        number=number,
        provider=provider,
        task_id=task_id,
        provider_outcome=provider_outcome,
        ends_after=round(rng.uniform(4, 30), 2),
        registration=registration,
        images=images,
        callbacks=callbacks,
        poll_faults=_poll_faults(rng),
        is_record_shaped=provider == NANOBANANA and rng.random() < 0.3,
        forgery=_false_report(rng, provider_outcome, provider, task_id, "forged") if rng.random() < 0.03 else None,
    )
    if rng.random() < NOT_STREAMED_SHARE and not is_oversized:
        return _not_streamed(plan)
    if is_oversized:
        return _oversized(plan)
    # A poll of Ace Data covers several tasks: an outage would also affect the others.
    may_be_out = (
        number % PROVIDER_OUT_EVERY == PROVIDER_OUT_OFFSET and plan.provider_outcome.paths and provider != ACEDATA
    )
    return _with_provider_out(plan, rng) if may_be_out else plan


def _oversized(plan: TaskPlan) -> TaskPlan:
    """Returns a plan without any other fault: only the kills prevent its archiving."""
    images = tuple(replace(image, fault=ImageFault.NONE) for image in plan.images)
    callback = CallbackPlan(plan.provider_outcome, CallbackFault.NONE, (0.0,))
    return replace(
        plan, registration=Registration.FIRST, images=images, callbacks=(callback,), poll_faults=(), is_oversized=True
    )


def _with_provider_out(plan: TaskPlan, rng: random.Random) -> TaskPlan:
    """Returns a plan with a false failure during the provider's outage; the correct callback is lost."""
    failure = ReportedState("FAILED", reason=rng.choice(REASONS))
    callbacks = (
        CallbackPlan(plan.provider_outcome, CallbackFault.DROPPED, ()),
        CallbackPlan(failure, CallbackFault.CONTRADICTED, (round(rng.uniform(0, 30), 2),)),
    )
    return replace(plan, registration=Registration.FIRST, callbacks=callbacks, poll_faults=(), is_provider_out=True)


def _not_streamed(plan: TaskPlan) -> TaskPlan:
    """Returns a plan of a task that only the hourly run of ReconcileTasks can find."""
    callbacks = (
        () if plan.provider_outcome is RUNNING else (CallbackPlan(plan.provider_outcome, CallbackFault.DROPPED, ()),)
    )
    return replace(plan, registration=Registration.NOT_STREAMED, callbacks=callbacks)


def _images(rng: random.Random, provider: str, task_id: str) -> tuple[ImagePlan, ...]:
    kinds = ["result"]
    if provider == FLUX_KONTEXT and rng.random() < 0.9:
        kinds = ["origin", "result"]
    elif provider == ACEDATA:
        kinds *= rng.choice((1, 1, 2, 4))
    return tuple(_image(rng, provider, task_id, kind, kinds[:place].count(kind)) for place, kind in enumerate(kinds))


def _image(rng: random.Random, provider: str, task_id: str, kind: str, index: int) -> ImagePlan:
    fault = _one_of(
        rng,
        {
            ImageFault.NONE: 790,
            ImageFault.SLOW: 40,
            ImageFault.ERRORS_FIRST: 50,
            ImageFault.TRUNCATED_FIRST: 40,
            ImageFault.RESET_FIRST: 20,
            ImageFault.NOT_YET: 20,
            ImageFault.STALE: 25,
            ImageFault.GONE: 10,
            ImageFault.PAGE: 5,
        },
    )
    extension = rng.choice(("jpg", "png", "webp"))
    return ImagePlan(
        path=f"/images/{provider}/{task_id}/{kind}-{index}.{extension}",
        kind=kind,
        index=index,
        format=rng.choice(("JPEG", "PNG", "WEBP")),
        fault=fault,
        faulty_requests=rng.choice((1, 1, 2)) if fault in (ImageFault.ERRORS_FIRST, ImageFault.TRUNCATED_FIRST) else 1,
    )


def _callbacks(
    rng: random.Random, provider_outcome: ReportedState, provider: str, task_id: str
) -> tuple[CallbackPlan, ...]:
    if provider_outcome is RUNNING:
        if rng.random() < 0.8:
            return ()
        false_report = ReportedState("SUCCEEDED", (f"/strange/{provider}/{task_id}/result-0.png",))
        return (CallbackPlan(false_report, CallbackFault.CONTRADICTED, (0.0,)),)
    soon = round(rng.uniform(0, 3), 2)
    fault = _one_of(
        rng,
        {
            CallbackFault.NONE: 54,
            CallbackFault.DROPPED: 10,
            CallbackFault.REPEATED: 9,
            CallbackFault.REORDERED: 7,
            CallbackFault.CONTRADICTED: 8,
            CallbackFault.DELAYED: 6,
            CallbackFault.CUT: 6,
        },
    )
    match fault:
        case CallbackFault.DROPPED:
            return (CallbackPlan(provider_outcome, fault, ()),)
        case CallbackFault.REPEATED:
            gap = rng.choice((0.0, 0.0, 5.0, 40.0))
            return (
                CallbackPlan(
                    provider_outcome, fault, tuple(soon + gap * copy for copy in range(rng.choice((2, 2, 3, 5))))
                ),
            )
        case CallbackFault.REORDERED:
            # The provider's first report, which the second one replaces, arrives with the second one or after it.
            first = ReportedState(
                "FAILED", reason=rng.choice([reason for reason in REASONS if reason != provider_outcome.reason])
            )
            return (
                CallbackPlan(provider_outcome, CallbackFault.NONE, (soon,)),
                CallbackPlan(first, fault, (soon + rng.choice((0.0, 2.0, 20.0)),)),
            )
        case CallbackFault.CONTRADICTED:
            false_report = _false_report(rng, provider_outcome, provider, task_id, "strange")
            false_at = soon + rng.choice((0.0, 10.0, 60.0))
            # The correct callback may be lost, or arrive before or after the false one.
            correct_at = _one_of(rng, {(): 3, (soon,): 4, (soon + 30.0,): 3})
            return (
                CallbackPlan(provider_outcome, CallbackFault.NONE if correct_at else CallbackFault.DROPPED, correct_at),
                CallbackPlan(false_report, fault, (false_at,)),
            )
        case CallbackFault.DELAYED:
            return (CallbackPlan(provider_outcome, fault, (round(rng.uniform(150, 600), 2),)),)
        case CallbackFault.CUT:
            return (CallbackPlan(provider_outcome, fault, (soon,), rng.choice(list(Cut)), rng.choice((1, 1, 2, 4))),)
        case _:
            return (CallbackPlan(provider_outcome, fault, (soon,)),)


def _false_report(
    rng: random.Random, provider_outcome: ReportedState, provider: str, task_id: str, folder: str
) -> ReportedState:
    """Returns a report that differs from the provider's own."""
    if len(provider_outcome.paths) > 1 and provider == ACEDATA and rng.random() < 0.5:
        return ReportedState("SUCCEEDED", provider_outcome.paths[:1])  # correct, but incomplete
    if rng.random() < 0.5:
        return ReportedState(
            "FAILED", reason=rng.choice([reason for reason in REASONS if reason != provider_outcome.reason])
        )
    return ReportedState("SUCCEEDED", (f"/{folder}/{provider}/{task_id}/result-0.png",))


def _poll_faults(rng: random.Random) -> tuple[PollFault, ...]:
    if rng.random() < 0.75:
        return ()
    weights = {
        PollFault.ERROR: 5,
        PollFault.BUSY: 1,
        PollFault.CUT: 3,
        PollFault.GARBAGE: 2,
        PollFault.SLOW: 4,
        PollFault.UNKNOWN: 3,
        PollFault.LAGGING: 4,
    }
    return tuple(_one_of(rng, weights) for _ in range(rng.choice((1, 1, 2, 3))))


def _one_of(rng: random.Random, weights: dict[T, int]) -> T:
    return rng.choices(list(weights), list(weights.values()))[0]


def deliveries_by_fault(plans: Sequence[TaskPlan]) -> dict[CallbackFault, int]:
    """Returns the number of planned deliveries of callbacks by fault, without retries.

    Dropped callbacks are counted. Of a repeated callback the first copy counts as a delivery without a fault.
    """
    counts = dict.fromkeys(CallbackFault, 0)
    for plan in plans:
        for callback in plan.callbacks:
            counts[callback.fault] += 1
            if len(callback.at) > 1:
                counts[callback.fault] += len(callback.at) - 2
                counts[CallbackFault.NONE] += 1
    return counts
