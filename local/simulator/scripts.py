"""Defines the named scripts of simulated tasks, one for each behaviour of the real services."""

import re
from dataclasses import dataclass
from enum import StrEnum

FLUX_KONTEXT, NANOBANANA, ACEDATA = PROVIDERS = ("flux-kontext", "nanobanana", "acedata")


class Outcome(StrEnum):
    """The outcomes of a simulated task: success, or one kind of failure."""

    SUCCESS = "success"
    CONTENT_POLICY = "content-policy"
    INTERNAL_ERROR = "internal-error"
    GENERATION_FAILED = "generation-failed"
    CREATE_FAILED = "create-failed"


@dataclass(frozen=True, slots=True)
class PlannedCallback:
    """A callback that the provider will send if the submission contained a callback URL."""

    delay_seconds: float = 0.0  # after the task's end, or after the previous callback was delivered or given up
    outcome: Outcome | None = None  # None: the outcome of the task's script
    copies: int = 1  # sent at the same time
    tells_task_id: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """One behaviour of a task. Times are simulated seconds."""

    name: str
    description: str
    outcome: Outcome = Outcome.SUCCESS
    generation_seconds: float = 12.0  # real services take 8 to 112 s
    ends_when_polled: int = 0  # the task ends after this many polls while it runs; 0: polls have no effect
    callbacks: tuple[PlannedCallback, ...] = (PlannedCallback(),)
    callback_before_answer: bool = False  # the callback is sent before the submission is answered
    record_shaped: bool = False  # the callback has the format of a poll record
    gives_origin: bool = True
    origin_alive: bool = True
    signs_origin: bool = False  # each poll answer has a newly signed URL of the original; the first one has expired
    outage_requests: int = 0  # each image answers 503 to this many requests first
    image_count: int = 1
    result_base_url: str | None = None  # base URL of the results' URLs; None: the simulator's own
    result_is_page: bool = False  # serves HTML with an image's name and content type
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
    """The script does not exist, or does not apply to this provider."""


def find_script(name: str, provider: str) -> Script:
    """Returns the script with this name.

    Raises:
        UnknownScriptError: this provider has no such script; the message lists its scripts.
    """
    script = SCRIPTS.get(name)
    if script is None or provider not in script.providers:
        known = ", ".join(script.name for script in _ALL if provider in script.providers)
        raise UnknownScriptError(f"no script {name!r} for {provider}; there are: {known}")
    return script


def script_name_in(prompt: str) -> str:
    """Returns the script name in a prompt, as in `a white cat simulate:silent`; "success" if there is none."""
    found = re.search(r"\bsimulate:([a-z0-9-]+)", prompt)
    return found[1] if found else "success"
