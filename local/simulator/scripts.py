"""What a simulated task does: every way in which the real services behave, each under a name."""

import re
from dataclasses import dataclass
from enum import StrEnum

FLUX_KONTEXT, NANOBANANA, ACEDATA = PROVIDERS = ("flux-kontext", "nanobanana", "acedata")


class Outcome(StrEnum):
    """How a task ends."""

    SUCCESS = "success"
    CONTENT_POLICY = "content-policy"
    INTERNAL_ERROR = "internal-error"
    GENERATION_FAILED = "generation-failed"
    CREATE_FAILED = "create-failed"


@dataclass(frozen=True, slots=True)
class PlannedCallback:
    """A callback that the provider will send, if it has been given a URL."""

    delay_seconds: float = 0.0  # after the task's end, or after the callback before this one is through
    outcome: Outcome | None = None  # None: the task's own
    copies: int = 1  # at the same time
    tells_task_id: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """One behaviour. Times are simulated seconds."""

    name: str
    description: str
    outcome: Outcome = Outcome.SUCCESS
    generation_seconds: float = 12.0  # real ones: 8-112
    ends_when_polled: int = 0  # ends sooner, once so many polls have met it running; 0: polls change nothing
    callbacks: tuple[PlannedCallback, ...] = (PlannedCallback(),)
    callback_before_answer: bool = False  # the callback is out before the submission is answered
    record_shaped: bool = False  # the callback has the shape of a poll record
    gives_origin: bool = True
    origin_alive: bool = True
    signs_origin: bool = False  # the record signs the original's URL anew with every answer; the first is dead
    outage_requests: int = 0  # so often each image is answered 503 first
    image_count: int = 1
    result_base_url: str | None = None  # where results are said to be; None: here
    result_is_page: bool = False  # HTML under an image's name and content type
    providers: tuple[str, ...] = PROVIDERS


_ALL = (
    Script("success", "one callback, and every URL works"),
    Script("content-policy", "a failure: the prompt is refused", Outcome.CONTENT_POLICY, generation_seconds=4),
    Script("internal-error", "a failure: the service is at fault", Outcome.INTERNAL_ERROR),
    Script("generation-failed", "a failure: no image came out", Outcome.GENERATION_FAILED),
    Script(
        "create-failed",
        "a failure that no callback tells: the task never started",
        Outcome.CREATE_FAILED,
        generation_seconds=2,
        callbacks=(),
        providers=(FLUX_KONTEXT, NANOBANANA),
    ),
    Script("silent", "a success whose callback never comes", callbacks=()),
    Script("silent-failure", "a failure whose callback never comes", Outcome.GENERATION_FAILED, callbacks=()),
    Script("duplicates", "the same callback four times at once", callbacks=(PlannedCallback(copies=4),)),
    Script(
        "callback-first",
        "the callback arrives before the caller knows the task's id",
        generation_seconds=0,
        callback_before_answer=True,
    ),
    Script(
        "slow",
        "calls back once two polls have met it running, after ten minutes in any case",
        generation_seconds=600,
        ends_when_polled=2,
    ),
    Script(
        "late-failure",
        "a success, and 20 s later a callback that claims the opposite",
        callbacks=(PlannedCallback(), PlannedCallback(20, Outcome.GENERATION_FAILED)),
    ),
    Script("null-original", "a success without an original image", gives_origin=False, providers=(FLUX_KONTEXT,)),
    Script(
        "origin-gone", "a success whose original image is dead already", origin_alive=False, providers=(FLUX_KONTEXT,)
    ),
    Script(
        "origin-renewed",
        "found by polling, the original's URL dead by then; the record signs it anew with every answer",
        callbacks=(),
        signs_origin=True,
        providers=(FLUX_KONTEXT,),
    ),
    Script(
        "image-outage",
        "a success whose images cannot be had for longer than anybody tries",
        outage_requests=5,
        providers=(FLUX_KONTEXT,),
    ),
    Script("second-shape", "a callback in the shape of /generate-2", record_shaped=True, providers=(NANOBANANA,)),
    Script("several-images", "four images in one answer", image_count=4, providers=(ACEDATA,)),
    Script(
        "private-address", "a success whose result lies inside a private network", result_base_url="https://10.0.0.5"
    ),
    Script("html-page", "a success whose result is an HTML page that calls itself image/png", result_is_page=True),
    Script(
        "failure-without-id",
        "a callback that does not say which task failed: only polling can tell",
        Outcome.GENERATION_FAILED,
        callbacks=(PlannedCallback(tells_task_id=False),),
        providers=(ACEDATA,),
    ),
)
SCRIPTS = {script.name: script for script in _ALL}


class UnknownScriptError(LookupError):
    """There is no such script, or the provider never behaves so."""


def find_script(name: str, provider: str) -> Script:
    """The script of that name.

    Raises:
        UnknownScriptError: there is none for this provider; the message lists those there are.
    """
    script = SCRIPTS.get(name)
    if script is None or provider not in script.providers:
        known = ", ".join(script.name for script in _ALL if provider in script.providers)
        raise UnknownScriptError(f"no script {name!r} for {provider}; there are: {known}")
    return script


def script_name_in(prompt: str) -> str:
    """The script that a prompt asks for, as in `a white cat simulate:silent`; else "success"."""
    found = re.search(r"\bsimulate:([a-z0-9-]+)", prompt)
    return found[1] if found else "success"
