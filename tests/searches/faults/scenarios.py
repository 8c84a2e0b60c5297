"""Defines the explored scenarios: the reports about one task, their senders, and the required final state."""

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
    Generating,
    Picture,
    Success,
    Unanswered,
    Word,
)


@dataclass(frozen=True, slots=True)
class Ending:
    """The required final state of a task, independent of the order of events and of faults."""

    status: TaskStatus
    pictures: tuple[Picture, ...] = ()  # in the bucket
    unknown_pictures: tuple[Picture, ...] = ()  # may be in the bucket, though the item does not list them
    reason: str | None = None  # the failure reason
    kept_pictures: tuple[Picture, ...] = ()  # in quarantine, and the item says where


ARCHIVED = Ending(TaskStatus.ARCHIVED, DONE.pictures)
# A run that is interrupted between writing the object and the item leaves an object. The next run recognises it if it
# can still download the bytes to compare. If not, because the URL has expired and the provider has no new one, the item
# is EXPIRED.
WITHOUT_ORIGIN = Ending(TaskStatus.INCOMPLETE, (RESULT,), unknown_pictures=(ORIGIN,))
# An origin that dies soon after the report is taken for one that had expired before it.
WITHOUT_EXPIRED_ORIGIN = Ending(TaskStatus.ARCHIVED, (RESULT,), unknown_pictures=(ORIGIN,))
WITHOUT_RESULT = Ending(TaskStatus.INCOMPLETE, (ORIGIN,))
REFUSED = Ending(TaskStatus.FAILED, reason="CONTENT_POLICY")
UNCONFIRMED = Ending(TaskStatus.UNCONFIRMED, reason="UNCONFIRMED", kept_pictures=DONE.pictures)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task, all events around it, and its final state."""

    name: str
    ending: Ending
    callbacks: tuple[Word, ...] = ()  # all in transit at once, each repeated until it is answered with 200
    answers: tuple[
        Word | Generating | Unanswered, ...
    ] = ()  # to successive polls; the last one also answers all later polls
    is_registered: bool = True
    has_api_key: bool = True
    # The origin's URL expires at some moment. Polls after that receive the next one of the answers.
    origin_dies: bool = False
    # Final states that are also accepted if that image is lost. Its message may then be in the dead-letter queue, which
    # raises an alarm.
    other_endings: tuple[Ending, ...] = ()
    faults: int = 1  # in every run, at most
    # Whether ArchiveTries is played with faults. Its two writes for each try, which change no status and no image,
    # multiply the states by thirty where tries of archiving fail without a fault: `make faults` leaves them out of the
    # three largest such scenarios, the tests out of the small ones, too.
    notes_tries: bool = True
    gives_up_at_first_poll: bool = False
    operator: str | None = None  # "redrive" or "reconciliation", at any moment


POLICY, INTERNAL = Failure(400), Failure(500)
RENEWED = Success((ORIGIN.renewed, RESULT))
NO_IMAGE = Success((ORIGIN, PAGE))

# Every run of the tests explores the small scenarios with every crash; `make faults` explores all with every fault.
SMALL = (
    Scenario("callback and poll say success", ARCHIVED, callbacks=(DONE,), answers=(DONE,)),
    Scenario("the callback is lost", ARCHIVED, answers=(DONE,)),
    Scenario("not registered", ARCHIVED, callbacks=(DONE,), answers=(DONE,), is_registered=False),
    Scenario("two callbacks of the same", ARCHIVED, callbacks=(DONE, DONE), answers=(DONE,), is_registered=False),
    Scenario("callback and poll say failure", REFUSED, callbacks=(POLICY,), answers=(POLICY,)),
    Scenario("a failure of an unregistered task", REFUSED, callbacks=(POLICY,), answers=(POLICY,), is_registered=False),
    Scenario("a false failure", ARCHIVED, callbacks=(INTERNAL,), answers=(DONE,)),
    Scenario("success and a late failure", ARCHIVED, callbacks=(DONE, INTERNAL), answers=(DONE,), is_registered=False),
    Scenario("an image that is none", WITHOUT_RESULT, callbacks=(NO_IMAGE,), answers=(NO_IMAGE,)),
    Scenario("given up", Ending(TaskStatus.TIMED_OUT), answers=(Generating(),), gives_up_at_first_poll=True),
    Scenario(
        "given up, then a callback",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(Generating(), DONE),
        gives_up_at_first_poll=True,
    ),
    Scenario(
        "not confirmed",
        UNCONFIRMED,
        callbacks=(DONE,),
        answers=(Generating(),),
        is_registered=False,
        gives_up_at_first_poll=True,
        notes_tries=False,
    ),
    *(
        Scenario(
            f"not confirmed, {why}",
            UNCONFIRMED,
            callbacks=(DONE,),
            answers=(answer,),
            is_registered=False,
            gives_up_at_first_poll=True,
            notes_tries=False,
        )
        for why, answer in (("a refused key", Unanswered(401)), ("a maintenance", Unanswered(455)))
    ),
    Scenario(
        "a URL dies for good",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE,),
        is_registered=False,
        origin_dies=True,
        other_endings=(
            WITHOUT_ORIGIN,
            WITHOUT_EXPIRED_ORIGIN,
            Ending(TaskStatus.SUCCEEDED, (RESULT,), unknown_pictures=(ORIGIN,)),
        ),
        notes_tries=False,
    ),
)
LARGE = (
    Scenario(
        "not confirmed, two callbacks",
        UNCONFIRMED,
        callbacks=(DONE, DONE),
        answers=(Generating(),),
        is_registered=False,
        gives_up_at_first_poll=True,
        faults=0,
    ),
    Scenario(
        "confirmed after the last try of archiving",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(*[Generating()] * 5, DONE),
        is_registered=False,
        notes_tries=False,
    ),
    Scenario(
        "not confirmed, and the URL dies",
        UNCONFIRMED,
        callbacks=(DONE,),
        answers=(Generating(), Generating()),
        is_registered=False,
        gives_up_at_first_poll=True,
        origin_dies=True,
        other_endings=(replace(UNCONFIRMED, kept_pictures=(RESULT,)),),
        notes_tries=False,
    ),
    # With a fault in every run it has 200,000 states.
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
        "the original only",
        Ending(TaskStatus.INCOMPLETE, (ORIGIN,)),
        callbacks=(ORIGINAL_ONLY,),
        answers=(ORIGINAL_ONLY,),
        is_registered=False,
        gives_up_at_first_poll=True,
        notes_tries=False,
    ),
    Scenario("three callbacks of the same", ARCHIVED, callbacks=(DONE, DONE, DONE), answers=(DONE,)),
    Scenario("a false success", REFUSED, callbacks=(FORGED,), answers=(POLICY,)),
    # With a fault in every run it has a million states.
    Scenario(
        "a false success, again",
        REFUSED,
        callbacks=(FORGED, FORGED),
        answers=(POLICY,),
        is_registered=False,
        faults=0,
    ),
    Scenario("false images", ARCHIVED, callbacks=(FORGED,), answers=(DONE,)),
    Scenario("true and false images", ARCHIVED, callbacks=(DONE, FORGED), answers=(DONE,), is_registered=False),
    Scenario("the record lags behind", ARCHIVED, callbacks=(DONE,), answers=(Generating(), DONE)),
    Scenario(
        "a URL dies, there is a fresh one",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE, RENEWED),
        is_registered=False,
        origin_dies=True,
    ),
    Scenario("no API key", ARCHIVED, callbacks=(DONE, DONE), has_api_key=False, gives_up_at_first_poll=True),
    Scenario(
        "redriven meanwhile", ARCHIVED, callbacks=(DONE,), answers=(DONE,), is_registered=False, operator="redrive"
    ),
    Scenario(
        "given up, then redriven",
        ARCHIVED,
        answers=(Generating(), DONE),
        gives_up_at_first_poll=True,
        operator="redrive",
        other_endings=(Ending(TaskStatus.TIMED_OUT),),  # redriven before it was given up
    ),
    Scenario(
        "an image that is none, redriven",
        WITHOUT_RESULT,
        callbacks=(NO_IMAGE,),
        answers=(NO_IMAGE,),
        is_registered=False,
        operator="redrive",
    ),
    Scenario(
        "reconciled meanwhile",
        ARCHIVED,
        callbacks=(DONE,),
        answers=(DONE,),
        is_registered=False,
        operator="reconciliation",
    ),
    # With a fault in every run it has 750,000 states.
    Scenario("reconciled while it is polled", ARCHIVED, answers=(DONE,), operator="reconciliation", faults=0),
)
SCENARIOS = (*(replace(scenario, notes_tries=True) for scenario in SMALL), *LARGE)
