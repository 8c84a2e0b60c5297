"""What the demo plays: the tasks of the documented examples, each with an ending of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from image_tasks.models import FailureReason, Reporter, TaskStatus, task_key
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
    failure: FailureReason | None = None
    callbacks: int = 1  # that the task counts, repeated and contradicting ones too
    conflicts: int = 0  # kept as evidence
    polled_while_running: bool = False

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
        return TaskStatus.FAILED if self.failure else TaskStatus.ARCHIVED

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


POLICY, INTERNAL, FAILED = FailureReason.CONTENT_POLICY, FailureReason.INTERNAL, FailureReason.GENERATION_FAILED

CASES = (
    Case(FLUX_KONTEXT, "task12345", "success", images=2),
    Case(FLUX_KONTEXT, "task12346", "content-policy", failure=POLICY),
    Case(FLUX_KONTEXT, "task12347", "internal-error", failure=INTERNAL),
    Case(FLUX_KONTEXT, "task12348", "generation-failed", failure=FAILED),
    Case(FLUX_KONTEXT, "task12349", "silent", POLL, images=2, callbacks=0),
    Case(FLUX_KONTEXT, "task12350", "callback-first", images=2),
    # Ends among its polls: whether one of them or the callback is first is a matter of milliseconds.
    Case(FLUX_KONTEXT, "task12351", "slow", EITHER, images=2, polled_while_running=True),
    Case(FLUX_KONTEXT, "task12352", "late-failure", images=2, callbacks=2, conflicts=1),
    Case(FLUX_KONTEXT, "task12353", "null-original", images=1),
    Case(NANOBANANA, "9e4286b7b27960dfeb8e1d279b50b28d", "duplicates", images=1, callbacks=4),
    Case(NANOBANANA, "933259930a1fc855a4e3835b7c60a028", "second-shape", images=1),
    Case(NANOBANANA, "5c0f2d64a91b4c7e8f3d6b20e7a94d18", "silent-failure", POLL, failure=FAILED, callbacks=0),
    Case(ACEDATA, "2db0168c-2373-4367-8d9a-9dc778802e8a", "several-images", images=4),
    Case(ACEDATA, "72bdd69d-290d-4710-a6d4-60c78968865a", "silent", POLL, images=1, callbacks=0),
    Case(ACEDATA, "2c454ff3-4f8f-47f0-8147-acb29a84d1c2", "generation-failed", failure=FAILED),
    # Refused, because nobody can tell which task it is about; the poll can.
    Case(ACEDATA, "b6ab2c38-5d0f-4a53-9c5e-0f6f2a4cbb71", "failure-without-id", POLL, failure=FAILED, callbacks=0),
)
