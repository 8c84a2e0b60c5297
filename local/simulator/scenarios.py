"""Defines the scenarios of simulated tasks: one for each behaviour of the real services and their image hosts."""

import re
from dataclasses import dataclass
from enum import StrEnum

# A host of simulated images that is in no list of expected image hosts. The local stack resolves it to this machine.
UNLISTED_HOST = "images.unlisted.test"

FLUX_KONTEXT, APIKLEY, NANOBANANA, KIE_MARKET, ACEDATA = PROVIDERS = (
    *("flux-kontext", "apikley", "nanobanana", "kie-market", "acedata"),
)
# Services with the same API: kie.ai, and its reseller.
FLUX_SERVICES = (FLUX_KONTEXT, APIKLEY)


class SimulatedOutcome(StrEnum):
    """The outcomes of a simulated task: success, or one kind of failure."""

    SUCCESS = "success"
    CONTENT_POLICY = "content-policy"
    INTERNAL_ERROR = "internal-error"
    GENERATION_FAILED = "generation-failed"
    CREATE_FAILED = "create-failed"


class ResultContent(StrEnum):
    """The content at the URLs of a task's results."""

    PICTURE = "picture"
    HTML = "html"  # with an image's name and content type
    HEIC = "heic"  # an image format that browsers do not show
    PHONE_PHOTO = "phone-photo"  # a JPEG followed by a second JPEG, as phones store a gain map


@dataclass(frozen=True, slots=True)
class PlannedCallback:
    """A callback that the provider will send if the submission contained a callback URL."""

    delay_seconds: float = 0.0  # after the task's end, or after the last attempt of the previous callback
    outcome: SimulatedOutcome | None = None  # None: the outcome of the task's scenario
    copies: int = 1  # sent at the same time
    has_task_id: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """One behaviour of a task. Times are simulated seconds."""

    name: str
    description: str
    outcome: SimulatedOutcome = SimulatedOutcome.SUCCESS
    generation_seconds: float = 12.0  # real services take 8 to 112 s
    ends_when_polled: int = 0  # the task ends after this many polls while it runs; 0: polls have no effect
    callbacks: tuple[PlannedCallback, ...] = (PlannedCallback(),)
    callback_before_response: bool = False  # the callback is sent before the response to the submission
    record_shaped: bool = False  # the callback has the format of a poll record
    gives_origin: bool = True
    origin_has_expired: bool = False
    signs_origin: bool = False  # each poll returns a newly signed URL of the original; the first one has expired
    polls_before_result: int = 0  # the callback and this many polls report the original only
    is_ever_recorded: bool = True  # False: every poll reports that the task is running
    poll_error: tuple[int, str] | None = None  # code and message that every poll returns instead of a record
    needs_download_url: bool = False  # a result's URL returns 403; only the download URL for it returns the image
    outage_requests: int = 0  # number of requests for each image that get 503 before the image is served
    image_count: int = 1
    video_count: int = 0  # videos before the images in the list of results
    result_base_url: str | None = None  # base URL of the results' URLs; None: the simulator's own
    result_content: ResultContent = ResultContent.PICTURE
    redirects: tuple[int, ...] = ()  # statuses of the redirects from a result's URL to the image
    redirects_to: str | None = None  # URL that the last redirect leads to; None: the image
    providers: tuple[str, ...] = PROVIDERS


_ALL = (
    Scenario("success", "one callback, and every URL works"),
    Scenario(
        "content-policy", "a failure: the prompt is refused", SimulatedOutcome.CONTENT_POLICY, generation_seconds=4
    ),
    Scenario("internal-error", "a failure: an internal error of the service", SimulatedOutcome.INTERNAL_ERROR),
    Scenario("generation-failed", "a failure: the generation failed", SimulatedOutcome.GENERATION_FAILED),
    Scenario(
        "create-failed",
        "a failure without a callback: the task was never created",
        SimulatedOutcome.CREATE_FAILED,
        generation_seconds=2,
        callbacks=(),
        providers=(*FLUX_SERVICES, NANOBANANA),
    ),
    Scenario("silent", "a success whose callback is lost", callbacks=()),
    Scenario("silent-failure", "a failure whose callback is lost", SimulatedOutcome.GENERATION_FAILED, callbacks=()),
    Scenario("duplicates", "the same callback four times at once", callbacks=(PlannedCallback(copies=4),)),
    Scenario(
        "callback-first",
        "the callback arrives before the response to the submission",
        generation_seconds=0,
        callback_before_response=True,
    ),
    Scenario(
        "slow",
        "ends after two polls, or after an hour",
        generation_seconds=3600,
        ends_when_polled=2,
    ),
    Scenario(
        "late-failure",
        "a success, and 20 s later a callback of a failure",
        callbacks=(PlannedCallback(), PlannedCallback(20, SimulatedOutcome.GENERATION_FAILED)),
    ),
    Scenario("null-original", "a success without an original image", gives_origin=False, providers=FLUX_SERVICES),
    Scenario(
        "origin-gone", "a success whose original image has expired", origin_has_expired=True, providers=FLUX_SERVICES
    ),
    Scenario(
        "origin-renewed",
        "a lost callback, and an original whose first URL has expired; each poll returns a newly signed URL",
        callbacks=(),
        signs_origin=True,
        providers=FLUX_SERVICES,
    ),
    Scenario(
        "original-first",
        "a callback that reports the original only; the third poll reports the result",
        polls_before_result=2,
        providers=FLUX_SERVICES,
    ),
    Scenario("never-confirmed", "a success that every poll reports as still running", is_ever_recorded=False),
    Scenario(
        "key-refused",
        "a success whose polls return code 401",
        poll_error=(401, "You do not have access permissions"),
        providers=(*FLUX_SERVICES, NANOBANANA),
    ),
    Scenario(
        "maintenance",
        "a success whose polls return code 455",
        poll_error=(455, "The service is under maintenance"),
        providers=(*FLUX_SERVICES, NANOBANANA),
    ),
    Scenario(
        "another-account",
        "a success of another account, or of a reseller: polls return that there is no such record",
        poll_error=(422, "recordInfo is null"),
        providers=(*FLUX_SERVICES, NANOBANANA),
    ),
    Scenario(
        "result-gone",
        "a success whose result can be downloaded only from a requested download URL",
        needs_download_url=True,
        providers=(FLUX_KONTEXT, KIE_MARKET),
    ),
    Scenario(
        "image-outage",
        "a success whose images return 503 for the first five requests",
        outage_requests=5,
        providers=FLUX_SERVICES,
    ),
    Scenario("second-shape", "a callback in the format of /generate-2", record_shaped=True, providers=(NANOBANANA,)),
    Scenario("several-images", "four images in one result", image_count=4, providers=(KIE_MARKET, ACEDATA)),
    Scenario("image-and-video", "an image and a video in one result", video_count=1, providers=(KIE_MARKET,)),
    Scenario("video", "a result that is a video", image_count=0, video_count=1, providers=(KIE_MARKET,)),
    Scenario(
        "private-address", "a success whose result has a URL in a private network", result_base_url="https://10.0.0.5"
    ),
    Scenario("html-page", "a success whose result is HTML, typed image/png", result_content=ResultContent.HTML),
    Scenario("heic", "a success whose result is a HEIC file", result_content=ResultContent.HEIC),
    Scenario(
        "phone-photo",
        "a success whose result is a JPEG followed by a second one",
        result_content=ResultContent.PHONE_PHOTO,
    ),
    Scenario("redirect", "a success whose result redirects once", redirects=(302,)),
    Scenario("redirect-chain", "a success whose result redirects three times", redirects=(301, 307, 308)),
    Scenario("redirect-loop", "a success whose result redirects to itself", redirects=(302,), redirects_to=""),
    Scenario(
        "redirect-inside",
        "a success whose result redirects to a private network",
        redirects=(302,),
        redirects_to="https://10.0.0.5/result.png",
    ),
    Scenario(
        "unlisted-host",
        "a success whose result has a host that is not in the list of expected hosts",
        result_base_url=f"http://{UNLISTED_HOST}:{{port}}",
    ),
    Scenario(
        "unreadable-result",
        "a success whose record has no usable URL; its callback is lost",
        callbacks=(),
        gives_origin=False,
        result_base_url="ftp://images.example",
        providers=(FLUX_KONTEXT, NANOBANANA, ACEDATA),  # a Market result that is not an http URL is text, not an error
    ),
    Scenario(
        "failure-without-id",
        "a callback without the task id: only polling finds the failure",
        SimulatedOutcome.GENERATION_FAILED,
        callbacks=(PlannedCallback(has_task_id=False),),
        providers=(ACEDATA,),
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}


def find_scenario(name: str, provider: str) -> Scenario:
    """Returns the scenario with this name.

    Raises:
        ValueError: this provider has no such scenario; the message lists its scenarios.
    """
    scenario = SCENARIOS.get(name)
    if scenario is None or provider not in scenario.providers:
        known = ", ".join(scenario.name for scenario in _ALL if provider in scenario.providers)
        raise ValueError(f"no scenario {name!r} for {provider}; there are: {known}")
    return scenario


def scenario_named_in(prompt: str) -> str:
    """Returns the scenario name in a prompt, as in `a white cat simulate:silent`; "success" if there is none."""
    found = re.search(r"\bsimulate:([a-z0-9-]+)", prompt)
    return found[1] if found else "success"
