"""Runs tasks through the deployed stack and checks the results, only through the APIs of the stack and of AWS."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from boto3.dynamodb.types import TypeSerializer

from catchlight.client import TaskResponse, TasksApiError, TasksClient
from catchlight.client.signing import SignedRequests
from catchlight.models import TaskStatus, task_key
from local.account import REGION
from local.simulator import ACEDATA, FLUX_KONTEXT, NANOBANANA, SCENARIOS, Simulator
from scripts.rehearsal import RehearsalError
from scripts.rehearsal.account import EventQueue, make_caller
from scripts.rehearsal.deployment import Deployment
from scripts.rehearsal.logs import FunctionLogs
from scripts.rehearsal.receiver import Receiver

UNREADABLE = {"rehearsal": "no task id"}
API_KEY = "rehearsal-api-key"
# For one task. On an idle machine the slowest task takes ten seconds.
MAX_TASK_SECONDS = 180.0


@dataclass(frozen=True)
class Case:
    """A task that is submitted through the tasks API, and its expected outcome."""

    provider: str
    scenario: str
    status: TaskStatus
    reported_by: str = "callback"
    images: int = 0


CASES = (
    Case(FLUX_KONTEXT, "success", TaskStatus.ARCHIVED, images=2),
    Case(FLUX_KONTEXT, "silent", TaskStatus.ARCHIVED, "poll", images=2),
    Case(NANOBANANA, "duplicates", TaskStatus.ARCHIVED, images=1),
    Case(FLUX_KONTEXT, "late-failure", TaskStatus.ARCHIVED, images=2),
    Case(FLUX_KONTEXT, "content-policy", TaskStatus.FAILED),
    Case(ACEDATA, "several-images", TaskStatus.ARCHIVED, images=4),
)


@dataclass
class StackChecks:
    """Runs tasks as a caller of the tasks API, with the simulated providers, and checks their results."""

    deployment: Deployment
    simulator: Simulator
    token: str
    verified: Callable[[str, str], None]  # prints a verified expectation and its figures
    caller: str  # name of the IAM user who calls the tasks API, and of the queue of events

    def __post_init__(self) -> None:
        self._resources = self.deployment.resources()
        self.logs = FunctionLogs(self.deployment.ministack, self._resources)
        self._caller = make_caller(self.deployment.ministack, self._resources["TasksApi"], self.caller)
        self._events = EventQueue(self.deployment.ministack, self._resources["TaskEventBus"], f"events-{self.caller}")

    # -- checks

    def run_cases(self) -> list[TaskResponse]:
        """Runs all cases; checks outcomes through the tasks API, and images byte for byte. Returns the tasks."""
        with self._api() as api:
            # Sequentially: on a small machine, simultaneous cold starts take longer than the functions' AWS timeouts.
            ended = [self._ended(api, case, self._submit(api, case)) for case in CASES]
            self._wait_for(lambda: self.simulator.outstanding_callbacks == 0, "every callback has been delivered")
            for case, task in zip(CASES, ended, strict=True):
                found = api.task(case.provider, task.task_id)
                expect(found.status == case.status, f"{case.scenario} stays {case.status}, not {found.status}")
                conflicts = len(found.conflicts)
                expect(conflicts == (case.scenario == "late-failure"), f"{case.scenario} has {conflicts} conflicts")
            self._check_list(api, ended)
            linked = sum(self._check_images(api, task) for task in ended)
        # On a busy machine an attempt may time out and is repeated; but no callback may be refused.
        answers = [delivery.status for delivery in self.simulator.deliveries]
        planned = sum(copies.copies for case in CASES for copies in SCENARIOS[case.scenario].callbacks)
        expect(answers.count(200) == planned, f"all {planned} callbacks are answered 200: {answers}")
        expect(all(status in (200, None) or status >= 500 for status in answers), f"no callback is refused: {answers}")
        self.verified(
            "all tasks are listed; each link returns the served bytes", f"{len(ended)} tasks, {linked} images"
        )
        return ended

    def warm_up(self) -> None:
        """Starts a worker of each function, one at a time: MiniStack is slow while a worker unpacks the layer."""
        begun = time.monotonic()
        client = self.deployment.ministack.client("lambda")
        names = ("DispatchChanges", "StartPolling", "ArchiveImages", "PublishEvents", "ReconcileTasks", "SendWebhooks")
        for name in names:
            # Some functions refuse a batch without records, which also shows that the handler runs.
            client.invoke(FunctionName=self._resources[f"{name}Function"], Payload=b'{"Records": []}')
        with self._api() as api:
            expect(api.page().tasks == (), "the table has no task")
        self.wrong_token()
        self.verified("all functions start; a wrong token is refused", f"{time.monotonic() - begun:.0f} s")

    def wrong_token(self) -> None:
        """Checks that the API calls the callback function, which refuses a wrong token with 401."""
        forged = self._callback_url(FLUX_KONTEXT).replace(self.token, "x" * len(self.token))
        status = httpx.post(forged, json={"code": 200}, timeout=120, trust_env=False).status_code
        expect(status == 401, f"a callback with a wrong token is answered 401, not {status}")

    def refusals(self) -> None:
        """Checks that unsigned requests and unreadable deliveries are refused, and unreadable deliveries stored."""
        with httpx.Client(trust_env=False, timeout=120) as http:
            unsigned = http.get(f"{self._tasks_api_url()}/tasks")
            expect(unsigned.status_code == 403, f"an unsigned request is answered 403, not {unsigned.status_code}")
            unreadable = http.post(self._callback_url(FLUX_KONTEXT), json=UNREADABLE)
            status = unreadable.status_code
            expect(400 <= status < 500, f"an unreadable delivery is answered 4xx, not {status}")
        s3, bucket = self.deployment.ministack.client("s3"), self._resources["ImagesBucket"]
        kept = s3.list_objects_v2(Bucket=bucket, Prefix="rejected/").get("Contents", [])
        expect(len(kept) == 1, f"1 unreadable delivery is stored, not {len(kept)}")
        document = json.load(s3.get_object(Bucket=bucket, Key=kept[0]["Key"])["Body"])
        expect(json.loads(b64decode(document["body"])) == UNREADABLE, "the stored delivery has the delivered body")
        self.verified(
            "unsigned and unreadable requests are refused",
            f"{unsigned.status_code}; {unreadable.status_code}",
        )

    def events(self, ended: list[TaskResponse]) -> None:
        """Checks that the event bus receives an event for each of these final tasks."""
        expected = {task_key(task.provider, task.task_id) for task in ended}
        received: set[str] = set()

        def all_received() -> bool:
            received.update(self._events.received())
            return expected <= received

        self._wait_for(all_received, "the event bus has an event for each final task")
        self.verified("events of final tasks", f"{len(expected)} events")

    def webhooks(self, ended: list[TaskResponse], receiver: Receiver) -> None:
        """Checks that the receiver gets a webhook with a valid signature for each of these final tasks."""
        self._wait_for_webhooks(ended, receiver)
        expect(receiver.refusals == [], f"every webhook is signed with the secret: {receiver.refusals}")
        self.verified("webhooks of final tasks", f"{len(ended)} webhooks")

    def wait_for_all_webhooks(self, receiver: Receiver) -> None:
        """Waits until the receiver has the webhooks of all tasks.

        Must be called before the stack is deleted: a deletion may delete a function's role before the function.
        """
        with self._api() as api:
            self._wait_for_webhooks(list(api.tasks()), receiver)

    def reconciliation(self) -> None:
        """Checks that ReconcileTasks restarts polling and archiving of tasks whose stream record was lost."""
        task = self.simulator.submit(FLUX_KONTEXT, scenario="success")
        pending = self.simulator.submit(FLUX_KONTEXT, scenario="success")
        self._wait_for(lambda: task.outcome_at(time.time()) is not None, "the simulated task has ended")
        client = self.deployment.ministack.client("lambda")
        mapping = self._resources["DispatchChangesFunctionTasksTableStream"]
        client.update_event_source_mapping(UUID=mapping, Enabled=False)
        long_ago = "2020-01-01T00:00:00.000Z"
        waiting = {"state": "PENDING", "expiresAt": "2999-01-01T00:00:00.000Z"}
        images = [{"kind": image.kind, "url": image.url, **waiting} for image in task.images]
        self._put(task.task_id, TaskStatus.SUCCEEDED, long_ago, images=images, reportedBy="poll", reportedAt=long_ago)
        self._put(pending.task_id, TaskStatus.PENDING, long_ago)
        answer = client.invoke(FunctionName=self._resources["ReconcileTasksFunction"], Payload=b"{}")
        payload = json.loads(answer["Payload"].read())
        self.logs.raise_for_faults()
        found = payload == {"pollingRestarted": 1, "archivingRepeated": 1}
        expect(found, f"polling is restarted for one task and archiving for another, not {payload}")
        by_poll = Case(FLUX_KONTEXT, "success", TaskStatus.ARCHIVED, "poll", 2)
        with self._api() as api:
            self._ended(api, by_poll, task.task_id)
            # Enabled again, so that DispatchChanges receives the result that polling writes.
            client.update_event_source_mapping(UUID=mapping, Enabled=True)
            self._ended(api, by_poll, pending.task_id)
        self.verified("tasks with lost stream records recovered by ReconcileTasks", "2 tasks")

    def one_task(self) -> None:
        """Runs one task, to check that the stack still works after an update."""
        with self._api() as api:
            self._ended(api, CASES[0], self._submit(api, CASES[0]))

    def earlier_tasks(self, ended: list[TaskResponse]) -> int:
        """Checks that the tasks and images of an earlier stack are available. Returns the number of images."""
        with self._api() as api:
            self._check_list(api, ended)
            return sum(self._check_images(api, task) for task in ended)

    # -- helpers

    def _wait_for_webhooks(self, ended: list[TaskResponse], receiver: Receiver) -> None:
        expected = {task_key(task.provider, task.task_id) for task in ended}
        self._wait_for(lambda: expected <= receiver.tasks, "the receiver has a webhook for each final task")

    def _submit(self, api: TasksClient, case: Case) -> str:
        prompt = f"a mountain lake simulate:{case.scenario}"
        task_id: str = api.submit(case.provider, {"prompt": prompt} | _required(case.provider)).task_id
        return task_id

    def _ended(self, api: TasksClient, case: Case, task_id: str) -> TaskResponse:
        deadline = time.monotonic() + MAX_TASK_SECONDS
        while True:
            self.logs.raise_for_faults()
            task = api.task(case.provider, task_id, wait_seconds=5)
            if task.done:
                break
            expect(time.monotonic() < deadline, f"{case.scenario} ends within {MAX_TASK_SECONDS:.0f} s: {task!r}")
        expect(task.status == case.status, f"{case.scenario} ends {case.status}, not {task.status}: {task!r}")
        expect(task.reported_by == case.reported_by, f"{case.scenario} is reported by {case.reported_by}: {task!r}")
        expect(len(task.images) == case.images, f"{case.scenario} has {case.images} images: {task!r}")
        self.verified(
            f"{case.provider}, {case.scenario}", f"{task.status}, by {task.reported_by}, {len(task.images)} images"
        )
        return task

    def _check_list(self, api: TasksClient, ended: list[TaskResponse]) -> None:
        listed = {task.task_id for task in api.tasks()}
        expect({task.task_id for task in ended} <= listed, "GET /tasks lists every task")
        failed = [task.task_id for task in api.tasks(status=TaskStatus.FAILED)]
        wanted = [task.task_id for task in ended if task.status == TaskStatus.FAILED]
        expect(failed == wanted, "GET /tasks?status=FAILED lists the failed tasks only")

    def _check_images(self, api: TasksClient, task: TaskResponse) -> int:
        simulated = self.simulator.find_task(task.provider, task.task_id)
        served = {(image.kind, image.index): image.picture.content for image in simulated.images} if simulated else {}
        for (kind, index), content in served.items() if task.images else ():
            with api.open_link(api.image_link(task.provider, task.task_id, kind, index)) as response:
                expect(response.read() == content, f"{kind}-{index} of {task.task_id} has the served bytes")
        return len(task.images)

    def _put(self, task_id: str, status: TaskStatus, updated_at: str, **more: Any) -> None:
        item: dict[str, Any] = {"task": task_key(FLUX_KONTEXT, task_id), "provider": FLUX_KONTEXT, "taskId": task_id}
        item |= {
            "status": status.value,
            "rank": status.rank,
            "registeredAt": updated_at,
            "updatedAt": updated_at,
            **more,
        }
        serialized = TypeSerializer().serialize(item)["M"]
        client = self.deployment.ministack.client("dynamodb")
        client.put_item(TableName=self._resources["TasksTable"], Item=serialized)

    def _wait_for(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + MAX_TASK_SECONDS
        while not holds():
            self.logs.raise_for_faults()
            expect(time.monotonic() < deadline, f"within {MAX_TASK_SECONDS:.0f} s: {what}")
            time.sleep(2)

    def _tasks_api_url(self) -> str:
        return self.deployment.outputs()["TasksApiUrl"]

    def _callback_url(self, provider: str) -> str:
        url = self._tasks_api_url().replace(self._resources["TasksApi"], self._resources["CallbackApi"])
        return f"{url}/callbacks/{provider}/{self.token}"

    @contextmanager
    def _api(self) -> Iterator[TasksClient]:
        signed = SignedRequests(self._caller, REGION)
        with TasksClient(self._tasks_api_url(), signed, trust_environment=False) as api:
            try:
                yield api
            except TasksApiError as exc:
                self.logs.raise_for_faults()
                raise RehearsalError(f"The tasks API refused a request: {exc}") from exc


def _required(provider: str) -> dict[str, Any]:
    """Returns the parameters that a provider requires besides the prompt."""
    return {"action": "generate"} if provider == ACEDATA else {}


def expect(holds: bool, what: str) -> None:
    """Raises RehearsalError, which ends the rehearsal, if an expectation does not hold."""
    if not holds:
        raise RehearsalError(f"An expectation is not met: {what}.")
