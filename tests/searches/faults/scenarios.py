"""Defines the explored scenarios: callbacks and poll responses of one task, and its required final state."""

from dataclasses import dataclass, replace

from catchlight.models import TaskStatus
from tests.searches.faults.provider import (
    DONE,
    FORGED,
    ORIGIN,
    ORIGINAL_ONLY,
    PAGE,
    RESULT,
    Failure,
    FinalReport,
    Picture,
    PollError,
    StillRunning,
    Success,
)


@dataclass(frozen=True, slots=True)
class EndState:
    """The required final state of a task after any order of events and any fault."""

    status: TaskStatus
    pictures: tuple[Picture, ...] = ()  # in the bucket
    optional_pictures: tuple[Picture, ...] = ()  # may be in the bucket without being in the item
    reason: str | None = None  # the failure reason
    quarantined_pictures: tuple[Picture, ...] = ()  # in quarantine, with their keys in the item


ARCHIVED = EndState(TaskStatus.ARCHIVED, DONE.pictures)
# A run that is interrupted after writing the object and before writing the item leaves an object. The next run reuses
# it if it can download the bytes to compare. Otherwise, if the URL has expired and the provider has no new one, the
# image is EXPIRED.
WITHOUT_ORIGIN = EndState(TaskStatus.INCOMPLETE, (RESULT,), optional_pictures=(ORIGIN,))
# An original that expires soon after the report is treated as one that expired before it.
WITHOUT_EXPIRED_ORIGIN = EndState(TaskStatus.ARCHIVED, (RESULT,), optional_pictures=(ORIGIN,))
WITHOUT_RESULT = EndState(TaskStatus.INCOMPLETE, (ORIGIN,))
REFUSED = EndState(TaskStatus.FAILED, reason="CONTENT_POLICY")
UNCONFIRMED = EndState(TaskStatus.UNCONFIRMED, reason="UNCONFIRMED", quarantined_pictures=DONE.pictures)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task, all events around it, and its final state."""

    name: str
    end_state: EndState
    callbacks: tuple[FinalReport, ...] = ()  # concurrently in transit, each sent again until it is answered with 200
    answers: tuple[
        FinalReport | StillRunning | PollError, ...
    ] = ()  # to successive polls; the last one also answers all later polls
    is_registered: bool = True
    has_api_key: bool = True
    # The original's URL expires at any time. Polls after that receive the next one of `answers`.
    origin_expires: bool = False
    # Further accepted end states. In these, messages may be in a dead-letter queue, which raises an alarm.
    other_end_states: tuple[EndState, ...] = ()
    faults: int = 1  # maximum number of faults in every order
    # Whether the writes of ArchiveTries are explored together with faults. The two writes for each try, which change no
    # status and no image, multiply the states by thirty in scenarios whose tries fail without a fault. `make faults`
    # omits them in the largest of these scenarios, the tests also in the small ones.
    records_tries: bool = True
    gives_up_at_first_poll: bool = False
    operator: str | None = None  # a run of "redrive" or "reconciliation" at any time


POLICY, INTERNAL = Failure(400), Failure(500)
RENEWED = Success((ORIGIN.renewed, RESULT))
NO_IMAGE = Success((ORIGIN, PAGE))

# The tests explore the small scenarios with every crash, the large ones without faults. `make faults` explores all
# scenarios with every fault.
SMALL = (
    Scenario("callback and poll report success", ARCHIVED, callbacks=(DONE,), answers=(DONE,)),
    Scenario("the callback is lost", ARCHIVED, answers=(DONE,)),
    Scenario("not registered", ARCHIVED, callbacks=(DONE,), answers=(DONE,), is_registered=False),
    Scenario("the same callback twice", ARCHIVED, callbacks=(DONE, DONE), answers=(DONE,), is_registered=False),
    Scenario("callback and poll report failure", REFUSED, callbacks=(POLICY,), answers=(POLICY,)),
    Scenario("a failure of an unregistered task", REFUSED, callbacks=(POLICY,), answers=(POLICY,), is_registered=False),
    Scenario("a false failure", ARCHIVED, callbacks=(INTERNAL,), answers=(DONE,)),
    Scenario("success and a late failure", ARCHIVED, callbacks=(DONE, INTERNAL), answers=(DONE,), is_registered=False),
    Scenario("a result that is not an image", WITHOUT_RESULT, callbacks=(NO_IMAGE,), answers=(NO_IMAGE,)),
    Scenario(
        "polling gives up", EndState(TaskStatus.TIMED_OUT), answers=(StillRunning(),), gives_up_at_first_poll=True
    ),
    Scenario(
        "polling gives up, then a callback arrives",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(StillRunning(), DONE),
        gives_up_at_first_poll=True,
    ),
    Scenario(
        "not confirmed",
        UNCONFIRMED,
        callbacks=(DONE,),
        answers=(StillRunning(),),
        is_registered=False,
        gives_up_at_first_poll=True,
        records_tries=False,
    ),
    *(
        Scenario(
            f"not confirmed, {why}",
            UNCONFIRMED,
            callbacks=(DONE,),
            answers=(answer,),
            is_registered=False,
            gives_up_at_first_poll=True,
            records_tries=False,
        )
        for why, answer in (("API key refused", PollError(401)), ("provider under maintenance", PollError(455)))
    ),
    Scenario(
        "a URL expires without a fresh one",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE,),
        is_registered=False,
        origin_expires=True,
        other_end_states=(
            WITHOUT_ORIGIN,
            WITHOUT_EXPIRED_ORIGIN,
            EndState(TaskStatus.SUCCEEDED, (RESULT,), optional_pictures=(ORIGIN,)),
        ),
        records_tries=False,
    ),
)
LARGE = (
    Scenario(
        "not confirmed, two callbacks",
        UNCONFIRMED,
        callbacks=(DONE, DONE),
        answers=(StillRunning(),),
        is_registered=False,
        gives_up_at_first_poll=True,
        faults=0,
    ),
    Scenario(
        "confirmed after the last try of archiving",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(*[StillRunning()] * 5, DONE),
        is_registered=False,
        records_tries=False,
    ),
    Scenario(
        "not confirmed, and the URL expires",
        UNCONFIRMED,
        callbacks=(DONE,),
        answers=(StillRunning(), StillRunning()),
        is_registered=False,
        gives_up_at_first_poll=True,
        origin_expires=True,
        other_end_states=(replace(UNCONFIRMED, quarantined_pictures=(RESULT,)),),
        records_tries=False,
    ),
    # With a fault in every order it has 200,000 states.
    Scenario(
        "the original comes first",
        ARCHIVED,
        callbacks=(ORIGINAL_ONLY,),
        answers=(ORIGINAL_ONLY, DONE),
        is_registered=False,
        faults=0,
    ),
    Scenario(
        "the original comes first, two callbacks",
        ARCHIVED,
        callbacks=(ORIGINAL_ONLY, DONE),
        answers=(DONE,),
        is_registered=False,
        faults=0,
    ),
    Scenario(
        "only the original",
        EndState(TaskStatus.INCOMPLETE, (ORIGIN,)),
        callbacks=(ORIGINAL_ONLY,),
        answers=(ORIGINAL_ONLY,),
        is_registered=False,
        gives_up_at_first_poll=True,
        records_tries=False,
    ),
    Scenario("the same callback three times", ARCHIVED, callbacks=(DONE, DONE, DONE), answers=(DONE,)),
    Scenario("a false success", REFUSED, callbacks=(FORGED,), answers=(POLICY,)),
    # With a fault in every order it has a million states.
    Scenario(
        "a false success, twice",
        REFUSED,
        callbacks=(FORGED, FORGED),
        answers=(POLICY,),
        is_registered=False,
        faults=0,
    ),
    Scenario("false images", ARCHIVED, callbacks=(FORGED,), answers=(DONE,)),
    Scenario("correct and false images", ARCHIVED, callbacks=(DONE, FORGED), answers=(DONE,), is_registered=False),
    Scenario("polls report the result late", ARCHIVED, callbacks=(DONE,), answers=(StillRunning(), DONE)),
    Scenario(
        "a URL expires, a fresh one exists",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE, RENEWED),
        is_registered=False,
        origin_expires=True,
    ),
    Scenario("no API key", ARCHIVED, callbacks=(DONE, DONE), has_api_key=False, gives_up_at_first_poll=True),
    Scenario(
        "redriven during processing",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE,),
        is_registered=False,
        operator="redrive",
    ),
    Scenario(
        "polling gives up, then a redrive",
        ARCHIVED,
        answers=(StillRunning(), DONE),
        gives_up_at_first_poll=True,
        operator="redrive",
        other_end_states=(EndState(TaskStatus.TIMED_OUT),),  # if the redrive comes before polling gives up
    ),
    Scenario(
        "a result that is not an image, redriven",
        WITHOUT_RESULT,
        callbacks=(NO_IMAGE,),
        answers=(NO_IMAGE,),
        is_registered=False,
        operator="redrive",
    ),
    Scenario(
        "reconciled during processing",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE,),
        is_registered=False,
        operator="reconciliation",
    ),
    # With a fault in every order it has 750,000 states.
    Scenario("reconciled during polling", ARCHIVED, answers=(DONE,), operator="reconciliation", faults=0),
)
SCENARIOS = (*(replace(scenario, records_tries=True) for scenario in SMALL), *LARGE)
