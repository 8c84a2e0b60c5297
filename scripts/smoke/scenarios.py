"""Lists the smoke test's steps by function. They cover every AWS operation and the errors that the code handles."""

from collections.abc import Mapping, Sequence

from scripts.smoke.api_steps import ANSWER_REQUESTS
from scripts.smoke.callback_steps import RECEIVE_CALLBACK
from scripts.smoke.change_steps import DISPATCH_CHANGES, PUBLISH_EVENTS
from scripts.smoke.steps import Step
from scripts.smoke.task_steps import ARCHIVE_IMAGES, POLL_TASKS, RECONCILE_TASKS

SCENARIOS: Mapping[str, Sequence[Step]] = {
    "ReceiveCallbackFunction": RECEIVE_CALLBACK,
    "ServeTasksApiFunction": ANSWER_REQUESTS,
    "DispatchChangesFunction": DISPATCH_CHANGES,
    "PollTasksFunction": POLL_TASKS,
    "ArchiveImagesFunction": ARCHIVE_IMAGES,
    "PublishEventsFunction": PUBLISH_EVENTS,
    "ReconcileTasksFunction": RECONCILE_TASKS,
}
