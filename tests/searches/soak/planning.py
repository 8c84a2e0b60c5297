"""Plans tasks at random: the same seed gives the same plans, task by task."""

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
    CallbackPlan,
    Cut,
    ImageFate,
    ImagePlan,
    PollFault,
    Registration,
    TaskPlan,
    Treatment,
)
from tests.searches.soak.reported_state import RUNNING, ReportedState

T = TypeVar("T")
UNSEEN_SHARE = 0.01
# One task of this many is lethal: each of its tries starts a process again, about three times a minute.
LETHAL_OF, LETHAL_NUMBER = 2500, 77
# One task of this many has a service that is out beyond giving up, if it is one that is polled for by itself.
OUT_OF, OUT_NUMBER = 25, 9


def plan_tasks(seed: int, count: int) -> list[TaskPlan]:
    """Returns the plans of a run."""
    return [plan_task(seed, number) for number in range(count)]


def plan_task(seed: int, number: int) -> TaskPlan:
    """Returns one task's plan, which depends only on these two numbers."""
    rng = random.Random(f"{seed}/{number}")
    provider = _one_of(rng, {FLUX_KONTEXT: 5, NANOBANANA: 3, ACEDATA: 2})
    digest = blake2b(f"{seed}/{number}".encode(), digest_size=16).hexdigest()
    task_id = str(uuid.UUID(digest)) if provider == ACEDATA else digest
    is_lethal = number % LETHAL_OF == LETHAL_NUMBER
    ending = _one_of(rng, {"SUCCEEDED": 86, "FAILED": 12, "PENDING": 2})
    if is_lethal:
        ending = "SUCCEEDED"
    images = _images(rng, provider, task_id) if ending == "SUCCEEDED" else ()
    truth = {
        "SUCCEEDED": ReportedState("SUCCEEDED", tuple(image.path for image in images)),
        "FAILED": ReportedState("FAILED", reason=rng.choice(REASONS)),
        "PENDING": RUNNING,
    }[ending]
    callbacks = _callbacks(rng, truth, provider, task_id)
    # Without registration and callback, a task could not become known.
    may_go_unregistered = any(plan.at for plan in callbacks)
    registration = _one_of(
        rng, {Registration.FIRST: 80, Registration.LATE: 12, Registration.NEVER: 8 if may_go_unregistered else 0}
    )
    plan = TaskPlan(
        number=number,
        provider=provider,
        task_id=task_id,
        truth=truth,
        ends_after=round(rng.uniform(4, 30), 2),
        registration=registration,
        images=images,
        callbacks=callbacks,
        poll_faults=_poll_faults(rng),
        is_record_shaped=provider == NANOBANANA and rng.random() < 0.3,
        forgery=_falsehood(rng, truth, provider, task_id, "forged") if rng.random() < 0.03 else None,
    )
    if rng.random() < UNSEEN_SHARE and not is_lethal:
        return _unseen(plan)
    if is_lethal:
        return _lethal(plan)
    # A poll of Ace Data asks about several tasks at once: no answer would concern the others, too.
    may_be_out = number % OUT_OF == OUT_NUMBER and plan.truth.paths and provider != ACEDATA
    return _with_service_out(plan, rng) if may_be_out else plan


def _lethal(plan: TaskPlan) -> TaskPlan:
    """Returns a plan whose task is archived with certainty, but for the kills."""
    images = tuple(replace(image, fate=ImageFate.FINE) for image in plan.images)
    callback = CallbackPlan(plan.truth, Treatment.NONE, (0.0,))
    return replace(
        plan, registration=Registration.FIRST, images=images, callbacks=(callback,), poll_faults=(), is_lethal=True
    )


def _with_service_out(plan: TaskPlan, rng: random.Random) -> TaskPlan:
    """Returns a plan in which a false failure arrives while the service is out, and the true callback does not."""
    failure = ReportedState("FAILED", reason=rng.choice(REASONS))
    callbacks = (
        CallbackPlan(plan.truth, Treatment.DROPPED, ()),
        CallbackPlan(failure, Treatment.CONTRADICTED, (round(rng.uniform(0, 30), 2),)),
    )
    return replace(plan, registration=Registration.FIRST, callbacks=callbacks, poll_faults=(), is_service_out=True)


def _unseen(plan: TaskPlan) -> TaskPlan:
    """Returns a plan in which nothing but the hourly run can find the task."""
    callbacks = () if plan.truth is RUNNING else (CallbackPlan(plan.truth, Treatment.DROPPED, ()),)
    return replace(plan, registration=Registration.UNSEEN, callbacks=callbacks)


def _images(rng: random.Random, provider: str, task_id: str) -> tuple[ImagePlan, ...]:
    kinds = ["result"]
    if provider == FLUX_KONTEXT and rng.random() < 0.9:
        kinds = ["origin", "result"]
    elif provider == ACEDATA:
        kinds *= rng.choice((1, 1, 2, 4))
    return tuple(_image(rng, provider, task_id, kind, kinds[:place].count(kind)) for place, kind in enumerate(kinds))


def _image(rng: random.Random, provider: str, task_id: str, kind: str, index: int) -> ImagePlan:
    fate = _one_of(
        rng,
        {
            ImageFate.FINE: 790,
            ImageFate.SLOW: 40,
            ImageFate.ERRORS_FIRST: 50,
            ImageFate.TRUNCATED_FIRST: 40,
            ImageFate.RESET_FIRST: 20,
            ImageFate.NOT_YET: 20,
            ImageFate.STALE: 25,
            ImageFate.GONE: 10,
            ImageFate.PAGE: 5,
        },
    )
    extension = rng.choice(("jpg", "png", "webp"))
    return ImagePlan(
        path=f"/images/{provider}/{task_id}/{kind}-{index}.{extension}",
        kind=kind,
        index=index,
        format=rng.choice(("JPEG", "PNG", "WEBP")),
        fate=fate,
        troubles=rng.choice((1, 1, 2)) if fate in (ImageFate.ERRORS_FIRST, ImageFate.TRUNCATED_FIRST) else 1,
    )


def _callbacks(rng: random.Random, truth: ReportedState, provider: str, task_id: str) -> tuple[CallbackPlan, ...]:
    if truth is RUNNING:
        if rng.random() < 0.8:
            return ()
        lie = ReportedState("SUCCEEDED", (f"/strange/{provider}/{task_id}/result-0.png",))
        return (CallbackPlan(lie, Treatment.CONTRADICTED, (0.0,)),)
    soon = round(rng.uniform(0, 3), 2)
    treatment = _one_of(
        rng,
        {
            Treatment.NONE: 54,
            Treatment.DROPPED: 10,
            Treatment.REPEATED: 9,
            Treatment.REORDERED: 7,
            Treatment.CONTRADICTED: 8,
            Treatment.DELAYED: 6,
            Treatment.CUT: 6,
        },
    )
    match treatment:
        case Treatment.DROPPED:
            return (CallbackPlan(truth, treatment, ()),)
        case Treatment.REPEATED:
            gap = rng.choice((0.0, 0.0, 5.0, 40.0))
            return (
                CallbackPlan(truth, treatment, tuple(soon + gap * copy for copy in range(rng.choice((2, 2, 3, 5))))),
            )
        case Treatment.REORDERED:
            # The first report, later withdrawn, arrives with or after the last one.
            first = ReportedState("FAILED", reason=rng.choice([reason for reason in REASONS if reason != truth.reason]))
            return (
                CallbackPlan(truth, Treatment.NONE, (soon,)),
                CallbackPlan(first, treatment, (soon + rng.choice((0.0, 2.0, 20.0)),)),
            )
        case Treatment.CONTRADICTED:
            false = _falsehood(rng, truth, provider, task_id, "strange")
            false_at = soon + rng.choice((0.0, 10.0, 60.0))
            # The true callback may be lost, or arrive before or after the false one.
            true_at = _one_of(rng, {(): 3, (soon,): 4, (soon + 30.0,): 3})
            return (
                CallbackPlan(truth, Treatment.NONE if true_at else Treatment.DROPPED, true_at),
                CallbackPlan(false, treatment, (false_at,)),
            )
        case Treatment.DELAYED:
            return (CallbackPlan(truth, treatment, (round(rng.uniform(150, 600), 2),)),)
        case Treatment.CUT:
            return (CallbackPlan(truth, treatment, (soon,), rng.choice(list(Cut)), rng.choice((1, 1, 2, 4))),)
        case _:
            return (CallbackPlan(truth, treatment, (soon,)),)


def _falsehood(rng: random.Random, truth: ReportedState, provider: str, task_id: str, folder: str) -> ReportedState:
    """Returns a false report."""
    if len(truth.paths) > 1 and provider == ACEDATA and rng.random() < 0.5:
        return ReportedState("SUCCEEDED", truth.paths[:1])  # true, but incomplete
    if rng.random() < 0.5:
        return ReportedState("FAILED", reason=rng.choice([reason for reason in REASONS if reason != truth.reason]))
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


def deliveries_by_treatment(plans: Sequence[TaskPlan]) -> dict[Treatment, int]:
    """Returns the number of planned deliveries of callbacks by treatment, without retries.

    A dropped one counts, too; the first copy of a repeated one does not.
    """
    counts = dict.fromkeys(Treatment, 0)
    for plan in plans:
        for callback in plan.callbacks:
            counts[callback.treatment] += 1
            if len(callback.at) > 1:
                counts[callback.treatment] += len(callback.at) - 2
                counts[Treatment.NONE] += 1
    return counts
