"""What the demo plays: the tasks of the documented examples, each with an ending of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catchlight.models import FailureReason, Reporter, TaskStatus, task_key
from local.demo.forgeries import Forgery
from local.simulator import ACEDATA, FLUX_KONTEXT, NANOBANANA, SCRIPTS, Script

CALLBACK, POLL, EITHER = {Reporter.CALLBACK}, {Reporter.POLL}, {Reporter.CALLBACK, Reporter.POLL}


@dataclass(frozen=True, slots=True)
class Case:
    """One task, and how it has to end."""

    provider: str
    task_id: str
    script_name: str
    reported_by: set[Reporter] = field(default_factory=lambda: CALLBACK)
    images: int = 0
    rejected: str | None = None  # why the results among them are not archived; the reason holds these words
    failure: FailureReason | None = None
    callbacks: tuple[int, ...] = (1,)  # that brought news or evidence, forged ones too: one of these numbers
    repeated: int = 0  # callbacks besides these, each answered like the first
    conflicts: tuple[int, ...] = (0,)  # kept as evidence: one of these numbers
    polled_while_running: bool = False
    forgery: Forgery | None = None  # what a stranger posts meanwhile
    told: str | None = None  # what is worth telling of it in the end
    by_api: bool = False  # submitted and waited for by the stack's own API; its provider makes up the id

    @property
    def key(self) -> str:
        """The item's key."""
        return task_key(self.provider, self.task_id)

    @property
    def script(self) -> Script:
        """What the simulator does."""
        return SCRIPTS[self.script_name]

    @property
    def status(self) -> TaskStatus:
        """Where it has to end."""
        if self.failure:
            return TaskStatus.FAILED
        return TaskStatus.INCOMPLETE if self.rejected else TaskStatus.ARCHIVED

    @property
    def title(self) -> str:
        """What happens, in a word or two."""
        if self.by_api:
            return f"{self.script_name}, by API"
        return self.forgery.title if self.forgery else self.script_name

    @property
    def path(self) -> str:
        """The endpoint it is submitted to, below the service's base URL."""
        if self.provider == FLUX_KONTEXT:
            return "/api/v1/flux/kontext/generate"
        if self.provider == ACEDATA:
            return "/flux/images"
        return f"/api/v1/nanobanana/generate{'-2' if self.script.record_shaped else ''}"

    def request(self, callback_url: str) -> Mapping[str, Any]:
        """The body of the submission: the documented examples' own."""
        if self.provider == FLUX_KONTEXT:
            prompt = {"prompt": "A serene mountain landscape", "aspectRatio": "16:9"}
            return {**prompt, "model": "flux-kontext-pro", "callBackUrl": callback_url}
        if self.provider == ACEDATA:
            prompt = {"prompt": "a white siamese cat", "size": "1024x1024"}
            return {"action": "generate", **prompt, "callback_url": callback_url}
        prompt = {"prompt": "A serene mountain landscape", "type": "TEXTTOIAMGE"}  # spelt so by the service
        return {**prompt, "numImages": 1, "callBackUrl": callback_url}


NO_TOKEN = Forgery(
    "forged, no token", knows_token=False, told="a stranger claimed a result, was answered 401, and left no trace."
)
WITH_TOKEN = Forgery(
    "forged, with token",
    knows_token=True,
    told="somebody who knew the token named 169.254.169.254. The provider did not confirm it: evidence, never fetched.",
)
POLICY, INTERNAL, FAILED = FailureReason.CONTENT_POLICY, FailureReason.INTERNAL, FailureReason.GENERATION_FAILED

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
        told="its callback never came. Polling found out, and brought the result.",
    ),
    Case(FLUX_KONTEXT, "task12350", "callback-first", images=2),
    Case(FLUX_KONTEXT, "task12351", "slow", images=2, polled_while_running=True),
    Case(FLUX_KONTEXT, "task12352", "late-failure", images=2, callbacks=(2,), conflicts=(1,)),
    Case(FLUX_KONTEXT, "task12353", "null-original", images=1),
    Case(FLUX_KONTEXT, "task12354", "slow", images=2, polled_while_running=True, forgery=NO_TOKEN),
    # Asked to confirm the forged result, the provider first says that it is still at work, then what is true. What it
    # calls back with meanwhile contradicts the claim too; where that comes after the correction it is no conflict, and
    # after the poll's answer no news.
    Case(FLUX_KONTEXT, "task12355", "slow", EITHER, images=2, callbacks=(1, 2), conflicts=(1, 2), forgery=WITH_TOKEN),
    Case(FLUX_KONTEXT, "task12356", "private-address", images=2, rejected="not a name of the public internet"),
    Case(
        FLUX_KONTEXT,
        "task12357",
        "origin-renewed",
        POLL,
        images=2,
        callbacks=(0,),
        told="the original's URL was dead when polling found it. The provider was asked for a fresh one in time.",
    ),
    Case(
        FLUX_KONTEXT,
        "task12358",
        "image-outage",
        images=2,
        told="its images could not be had in five tries. `catchlight redrive` brought it back from the dead letters.",
    ),
    Case(FLUX_KONTEXT, "by API", "success", images=2, by_api=True),
    Case(NANOBANANA, "9e4286b7b27960dfeb8e1d279b50b28d", "duplicates", images=1, repeated=3),
    Case(NANOBANANA, "933259930a1fc855a4e3835b7c60a028", "second-shape", images=1),
    Case(NANOBANANA, "5c0f2d64a91b4c7e8f3d6b20e7a94d18", "silent-failure", POLL, failure=FAILED, callbacks=(0,)),
    Case(NANOBANANA, "e81d3b7c40f94a5d9c26f07b1a3e5d88", "html-page", images=1, rejected="not an image"),
    Case(NANOBANANA, "by API", "success", images=1, by_api=True),
    Case(ACEDATA, "2db0168c-2373-4367-8d9a-9dc778802e8a", "several-images", images=4),
    Case(ACEDATA, "72bdd69d-290d-4710-a6d4-60c78968865a", "silent", POLL, images=1, callbacks=(0,)),
    Case(ACEDATA, "2c454ff3-4f8f-47f0-8147-acb29a84d1c2", "generation-failed", failure=FAILED),
    # Refused, because nobody can tell which task it is about; the poll can.
    Case(ACEDATA, "b6ab2c38-5d0f-4a53-9c5e-0f6f2a4cbb71", "failure-without-id", POLL, failure=FAILED, callbacks=(0,)),
)
