"""Defines the demo's tasks: the requests of the documented examples, each with the outcome that it must have."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catchlight.models import FailureReason, Reporter, TaskStatus, task_key
from local.demo.forgeries import Forgery
from local.simulator import ACEDATA, APIKLEY, FLUX_KONTEXT, KIE_MARKET, NANOBANANA, SCENARIOS, Scenario

CALLBACK, POLL, EITHER = {Reporter.CALLBACK}, {Reporter.POLL}, {Reporter.CALLBACK, Reporter.POLL}


@dataclass(frozen=True, slots=True)
class Case:
    """One task of the demo and its expected outcome."""

    provider: str
    task_id: str
    scenario_name: str
    reported_by: set[Reporter] = field(default_factory=lambda: CALLBACK)
    images: int = 0
    has_original: bool = True  # False: the URL of its original had expired
    rejected: str | None = None  # text that the stored reason of the rejected result must contain; None: it is archived
    failure: FailureReason | None = None
    callbacks: tuple[int, ...] = (1,)  # allowed numbers of counted callbacks, with forged ones, without duplicates
    repeated: int = 0  # number of duplicate callbacks, each of which must be accepted like the first one
    conflicts: tuple[int, ...] = (0,)  # allowed numbers of conflicts stored as evidence
    polled_while_running: bool = False
    forgery: Forgery | None = None  # forged callback that is posted while the task runs
    remark: str | None = None  # sentence about the case for the demo's final output
    by_api: bool = False  # submitted and awaited through the tasks API; the provider chooses the task id

    @property
    def key(self) -> str:
        """Key of the task's item in the table."""
        return task_key(self.provider, self.task_id)

    @property
    def scenario(self) -> Scenario:
        """The simulator's scenario for this task."""
        return SCENARIOS[self.scenario_name]

    @property
    def status(self) -> TaskStatus:
        """The final status that the task must have."""
        if self.failure is FailureReason.UNCONFIRMED:
            return TaskStatus.UNCONFIRMED
        if self.failure:
            return TaskStatus.FAILED
        return TaskStatus.INCOMPLETE if self.rejected else TaskStatus.ARCHIVED

    @property
    def archived_images(self) -> int:
        """The number of its images that must be archived in the end."""
        if self.status is TaskStatus.UNCONFIRMED:
            return 0
        return self.images - (self.rejected is not None) - (not self.has_original)

    @property
    def title(self) -> str:
        """Short description of the case for the output."""
        if self.by_api:
            return f"{self.scenario_name}, by API"
        return self.forgery.title if self.forgery else self.scenario_name

    @property
    def path(self) -> str:
        """Path of the submission endpoint below the service's base URL."""
        if self.provider in (FLUX_KONTEXT, APIKLEY):
            return "/api/v1/flux/kontext/generate"
        if self.provider == KIE_MARKET:
            return "/api/v1/jobs/createTask"
        if self.provider == ACEDATA:
            return "/flux/images"
        return f"/api/v1/nanobanana/generate{'-2' if self.scenario.record_shaped else ''}"

    @property
    def prompt(self) -> str:
        """The prompt in the submission."""
        request = self.request("")
        prompt: str = request.get("input", request)["prompt"]
        return prompt

    def request(self, callback_url: str) -> Mapping[str, Any]:
        """Returns the body of the submission, as in the documented examples."""
        if self.provider == KIE_MARKET:
            prompt = {"prompt": "A serene mountain landscape", "aspect_ratio": "16:9"}
            return {"model": "nano-banana-pro", "callBackUrl": callback_url, "input": prompt}
        if self.provider in (FLUX_KONTEXT, APIKLEY):
            prompt = {"prompt": "A serene mountain landscape", "aspectRatio": "16:9"}
            return {**prompt, "model": "flux-kontext-pro", "callBackUrl": callback_url}
        if self.provider == ACEDATA:
            prompt = {"prompt": "a white siamese cat", "size": "1024x1024"}
            return {"action": "generate", **prompt, "callback_url": callback_url}
        prompt = {"prompt": "A serene mountain landscape", "type": "TEXTTOIAMGE"}  # the service's own spelling
        return {**prompt, "numImages": 1, "callBackUrl": callback_url}


NO_TOKEN = Forgery(
    "forged, no token",
    has_token=False,
    remark="a forged callback without the token was refused with 401 and left no trace.",
)
WITH_TOKEN = Forgery(
    "forged, with token",
    has_token=True,
    remark="a forged callback with the token named 169.254.169.254. The provider contradicted it: nothing is archived.",
)
POLICY, INTERNAL, FAILED = FailureReason.CONTENT_POLICY, FailureReason.INTERNAL, FailureReason.GENERATION_FAILED
UNCONFIRMED = FailureReason.UNCONFIRMED

CASES = (
    Case(FLUX_KONTEXT, "task12345", "success", images=2),
    Case(FLUX_KONTEXT, "task12346", "content-policy", failure=POLICY),
    Case(FLUX_KONTEXT, "task12347", "internal-error", failure=INTERNAL),
    Case(FLUX_KONTEXT, "task12348", "generation-failed", failure=FAILED),
    Case(
        FLUX_KONTEXT,
        "task12349",
        "silent",
        POLL,
        images=2,
        callbacks=(0,),
        remark="its callback was lost. Polling found the result.",
    ),
    Case(FLUX_KONTEXT, "task12350", "callback-first", images=2),
    Case(FLUX_KONTEXT, "task12351", "slow", images=2, polled_while_running=True),
    Case(FLUX_KONTEXT, "task12352", "late-failure", images=2, callbacks=(2,), conflicts=(1,)),
    Case(FLUX_KONTEXT, "task12353", "null-original", images=1),
    Case(FLUX_KONTEXT, "task12354", "slow", images=2, polled_while_running=True, forgery=NO_TOKEN),
    # To confirm the forged result, the stack polls the provider: the first response is that the task is running, the
    # second one has the true result. The provider's callback in between contradicts the forged report, too. It is no
    # conflict if the report has been corrected before, and not counted if a poll has already reported the true result.
    # The order is not fixed, so several numbers are allowed.
    Case(FLUX_KONTEXT, "task12355", "slow", EITHER, images=2, callbacks=(1, 2), conflicts=(1, 2), forgery=WITH_TOKEN),
    Case(FLUX_KONTEXT, "task12356", "private-address", images=2, rejected="not a public host name"),
    Case(
        FLUX_KONTEXT,
        "task12357",
        "origin-renewed",
        POLL,
        images=2,
        callbacks=(0,),
        remark="the original's URL had expired when polling found it. The stack requested a new one from the provider.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12358",
        "image-outage",
        images=2,
        remark="five download attempts of each image failed. The retries archived both.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12359",
        "redirect-chain",
        images=2,
        remark="its result's URL redirected three times. Each hop was checked like the URL itself.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12360",
        "origin-gone",
        images=2,
        has_original=False,
        remark="its original had expired before the callback came. The task is ARCHIVED: its result is there.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12361",
        "original-first",
        POLL,
        images=2,
        remark="its callback reported the original only. Polling found the result.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12362",
        "result-gone",
        images=2,
        remark="the URL of its result did not work. The stack requested a download URL from kie.ai.",
    ),
    Case(FLUX_KONTEXT, "by API", "success", images=2, by_api=True),
    Case(NANOBANANA, "9e4286b7b27960dfeb8e1d279b50b28d", "duplicates", images=1, repeated=3),
    Case(NANOBANANA, "933259930a1fc855a4e3835b7c60a028", "second-shape", images=1),
    Case(NANOBANANA, "5c0f2d64a91b4c7e8f3d6b20e7a94d18", "silent-failure", POLL, failure=FAILED, callbacks=(0,)),
    Case(NANOBANANA, "e81d3b7c40f94a5d9c26f07b1a3e5d88", "html-page", images=1, rejected="not an image"),
    Case(
        NANOBANANA,
        "0b6e2f9d71c84a35be1907d2c4f85a60",
        "heic",
        images=1,
        rejected="HEIC",
        remark="its result is a HEIC file, which is not archived. Its bytes are kept in quarantine.",
    ),
    Case(
        NANOBANANA,
        "4d2a7c19e05b4f3e8a6611c0d9b7f352",
        "unlisted-host",
        images=1,
        remark="its result's host is in no list. It was allowed because the service reported the URL in a poll, too.",
    ),
    Case(
        NANOBANANA,
        "a90c5be27f1d4863b2e4d7f0186c3a95",
        "phone-photo",
        images=1,
        remark="its result is a phone's photo followed by a gain map. It was archived as a whole.",
    ),
    Case(NANOBANANA, "by API", "success", images=1, by_api=True),
    Case(APIKLEY, "task12345", "success", images=2),
    Case(APIKLEY, "task12346", "silent", POLL, images=2, callbacks=(0,)),
    Case(
        APIKLEY,
        "task12347",
        "never-confirmed",
        images=2,
        failure=UNCONFIRMED,
        remark="its service never confirmed the callback. Both images are in quarantine, for `catchlight accept`.",
    ),
    Case(APIKLEY, "task12348", "key-refused", images=2, failure=UNCONFIRMED),
    Case(APIKLEY, "task12349", "maintenance", images=2, failure=UNCONFIRMED),
    Case(APIKLEY, "task12350", "another-account", images=2, failure=UNCONFIRMED),
    Case(KIE_MARKET, "6ac0f3b19f2c4e0f9d3b5f9d2a7c1e84", "several-images", images=4),
    Case(
        KIE_MARKET,
        "d1f7c20b5e9a4c63b8a40e6f7d92c3b5",
        "image-and-video",
        images=1,
        remark="its result has an image and a video. The image is archived, the video is listed in `skipped`.",
    ),
    Case(KIE_MARKET, "0f5b8c7de31a49d2a6e4b19c8d70f263", "silent", POLL, images=1, callbacks=(0,)),
    Case(KIE_MARKET, "by API", "success", images=1, by_api=True),
    Case(ACEDATA, "2db0168c-2373-4367-8d9a-9dc778802e8a", "several-images", images=4),
    Case(ACEDATA, "72bdd69d-290d-4710-a6d4-60c78968865a", "silent", POLL, images=1, callbacks=(0,)),
    Case(ACEDATA, "2c454ff3-4f8f-47f0-8147-acb29a84d1c2", "generation-failed", failure=FAILED),
    # The callback is refused because it has no task id. A poll finds the failure.
    Case(ACEDATA, "b6ab2c38-5d0f-4a53-9c5e-0f6f2a4cbb71", "failure-without-id", POLL, failure=FAILED, callbacks=(0,)),
)
