"""Runs the real functions with recorded AWS answers, a controlled clock and a simulated provider."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from catchlight.archiving import archiver
from catchlight.archiving.url_refresher import UrlRefresher
from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.dispatch import Dispatcher
from catchlight.errors import ImageGoneError, ImageRejectedError
from catchlight.images.stream import ImageStream
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES, are_negative_answers_final, count_of_tries
from catchlight.polling.provider_client import ProviderClient
from catchlight.polling.status_lookup import StatusLookup
from catchlight.recovery import reconcile
from catchlight.recovery.reconcile import Reconciliation
from catchlight.recovery.redrive import Redrive
from catchlight.tasks.images import TaskImages
from catchlight.tasks.registration import Registry
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task
from functions.archive_images import app as archive_images
from functions.dispatch_changes import app as dispatch_changes
from functions.poll_tasks import app as poll_tasks
from functions.receive_callback import app as receive_callback
from functions.start_polling import app as start_polling
from local.events.filters import EventFilter
from local.moto.patches.s3 import put_object_as_s3_does
from local.moto.patches.sqs import scaled_delays
from local.template.expand import Template, load_template
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.integration.conftest import REPOSITORY, TABLE_NAME, a_store, an_account
from tests.integration.functions import PROVIDER_KEYS, TOKEN, a_callback, a_secret
from tests.searches.faults.account import BUCKET, TASK, Aws, AwsResponse
from tests.searches.faults.invocations import ExternalRequest, FunctionRunner, InlineExecutor
from tests.searches.faults.provider import ORIGIN, PAGE, PICTURES, TASK_ID, answer, download
from tests.searches.faults.scenarios import Scenario

_FUNCTIONS = (receive_callback, dispatch_changes, start_polling, poll_tasks, archive_images)
_GIVE_UP_AFTER_SECONDS = 6 * 3600
# Requests that are not AWS calls of the functions, and one of their answers.
POLL_PROVIDER = ExternalRequest("poll the provider")
FETCH_ORIGIN = ExternalRequest("download the original")
CONSUME_MESSAGE = ExternalRequest("delete the message")
GONE = AwsResponse("gone")

_context = FakeLambdaContext()
# Leaves DispatchChanges no time for retries: the explorer repeats failed invocations itself.
_context_without_retries = FakeLambdaContext(dispatch_changes.RESERVED_SECONDS)


class Harness:
    """The functions, the AWS account, and a provider with the scenario's answers."""

    def __init__(self, template: Template, patches: pytest.MonkeyPatch) -> None:
        a_store(template)
        self.aws = Aws()
        self._clients = AwsClients()
        self._registry = Registry(TasksTable(TABLE_NAME, self._clients.dynamodb()))
        self._dispatcher = Dispatcher(
            self._clients.sqs(),
            self._clients.step_functions(),
            archive_queue_url=self.aws.queue_url,
            state_machine=self.aws.state_machine,
        )
        self.runner = FunctionRunner(
            {
                "registration": self._register,
                "callback": lambda body: receive_callback.handler(a_callback(body), _context),
                "dispatch": self._dispatch,
                "start": self._start_polling,
                "poll": lambda state: poll_tasks.handler(json.loads(state), _context),
                "archive": self._archive,
                "redrive": lambda nonce: self._redrive.redrive(TASK, nonce=nonce),
                "reconciliation": self._reconcile,
            }
        )
        self._scenario: Scenario | None = None
        source = template.resources["DispatchChangesFunctionTasksTableStream"]["Properties"]
        self._filter = EventFilter([found["Pattern"] for found in source["FilterCriteria"]["Filters"]])
        self._filter_results: dict[str, bool] = {}
        self._patches = patches
        self._keys = {
            has_keys: a_secret(f"keys-{has_keys}", json.dumps(PROVIDER_KEYS if has_keys else {}))
            for has_keys in (True, False)
        }
        self._set_environment({"CALLBACK_TOKEN_SECRET": a_secret("token", TOKEN)})

    def prepare(self, scenario: Scenario) -> None:
        """Sets the functions' environment for a scenario, and creates their dependencies again."""
        self._scenario = scenario
        self.runner.clear()
        self._set_environment(
            {
                "PROVIDER_KEYS_SECRET": self._keys[scenario.has_api_key],
                "GIVE_UP_AFTER_SECONDS": "60" if scenario.gives_up_at_first_poll else str(_GIVE_UP_AFTER_SECONDS),
            }
        )
        for function in _FUNCTIONS:
            function.dependencies.cache_clear()
            function.dependencies()
        if not scenario.records_tries:
            self._patches.setattr(archive_images.dependencies().archive, "_tries", _NoTries())
        count = count_of_tries if scenario.records_tries else lambda receives, **_: receives
        self._patches.setattr(archiver, "count_of_tries", count)
        is_final = (
            are_negative_answers_final if scenario.records_tries else lambda tries, **_: tries >= MAX_ARCHIVE_TRIES
        )
        self._patches.setattr(archiver, "are_negative_answers_final", is_final)
        self._redrive = self._make_redrive(self._keys[scenario.has_api_key])
        self._patches.setattr(reconcile, "MAX_ARCHIVING_TIME", timedelta(0))
        self._reconciliation = Reconciliation(
            TABLE_NAME, self._clients.dynamodb(), self._dispatcher, now=lambda: self.runner.now
        )

    def _make_redrive(self, keys: str) -> Redrive:
        """Creates a Redrive as `catchlight redrive` does."""
        table = TasksTable(TABLE_NAME, self._clients.dynamodb())
        client = ProviderClient({}, http=FakeHttp(self.answer))
        secret = RotatingSecret(keys, self._clients.secrets_manager())
        status_lookup = StatusLookup(client, secret.provider_keys, now=lambda: self.runner.now)
        return Redrive(
            table, UrlRefresher(TaskImages(table), status_lookup), self._dispatcher, now=lambda: self.runner.now
        )

    def passes_filter(self, record: str) -> bool:
        """Returns whether the event source's filter passes a stream record to DispatchChanges."""
        if record not in self._filter_results:
            self._filter_results[record] = self._filter.matches(json.loads(record))
        return self._filter_results[record]

    # -------------------------------------------------------------------------------------------- functions

    def _register(self, _: str) -> None:
        self._registry.register("flux-kontext", [TASK_ID], now=self.runner.now)

    def _dispatch(self, batch: str) -> dict[str, Any]:
        records = [json.loads(record) for record in json.loads(batch)]
        answer: dict[str, Any] = dispatch_changes.handler({"Records": records}, _context_without_retries)
        return answer

    def _reconcile(self, _: str) -> None:
        """Restarts polling and archiving as ReconcileTasks does, of tasks of any age."""
        for batches in (
            self._reconciliation.restart_polling(timedelta(0)),
            self._reconciliation.repeat_archiving(),
        ):
            for _batch in batches:
                pass

    def _archive(self, messages: str) -> None:
        self._consume_unless_failed(archive_images.handler(json.loads(messages), _context))

    def _start_polling(self, messages: str) -> None:
        self._consume_unless_failed(start_polling.handler(json.loads(messages), _context))

    def _consume_unless_failed(self, answer: dict[str, Any]) -> None:
        if not answer["batchItemFailures"]:
            self.runner.answer_to(CONSUME_MESSAGE)  # Lambda deletes messages after the function has returned

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Returns the provider's response to a request."""
        assert self._scenario is not None
        answers, number = self._scenario.answers, 0
        # If all answers are equal, the time of the request does not matter: it is not a step of the exploration.
        if len(answers) > 1:
            number = int(self.runner.answer_to(POLL_PROVIDER).digest)
        return answer(answers[number])

    def fetch(self, url: str) -> ImageStream:
        """Returns the image at a URL."""
        assert self._scenario is not None
        picture = PICTURES[url]
        if picture == PAGE:
            raise ImageRejectedError("not an image")
        if self._scenario.origin_expires and picture == ORIGIN and self.runner.answer_to(FETCH_ORIGIN) == GONE:
            raise ImageGoneError("the server answers 404")
        return download(picture)

    def _set_environment(self, changes: dict[str, str]) -> None:
        environment = {
            "TASKS_TABLE": TABLE_NAME,
            "IMAGES_BUCKET": BUCKET,
            "ARCHIVE_QUEUE_URL": self.aws.queue_url,
            "ARCHIVE_DEAD_LETTERS_URL": f"{self.aws.queue_url}-dead-letters",
            "POLL_QUEUE_URL": self.aws.poll_queue_url,
            "DISPATCH_DEAD_LETTERS_URL": f"{self.aws.queue_url}-dead-letters",  # every record can be read
            "POLL_TASKS_STATE_MACHINE": self.aws.state_machine,
            "FIRST_POLL_AFTER_SECONDS": "60",
            "POLL_INTERVAL_SECONDS": "30",
            "SLOW_POLL_AFTER_SECONDS": "900",
            "SLOW_POLL_INTERVAL_SECONDS": "120",
            "ADDITIONAL_IMAGE_HOSTS": "",
            "PROVIDER_BASE_URLS": "",
        }
        for name, value in (environment | changes).items():
            self._patches.setenv(name, value)


class _NoTries:
    """Replaces ArchiveTries, whose writes some scenarios omit: each receive of a message counts as a try."""

    def begin(self, task: Task, *, now: datetime) -> None:
        """Does nothing."""

    def end(self, task: Task, *, has_failed: bool, is_negative: bool = False) -> None:
        """Does nothing."""


class _Fetcher:
    """Replaces the ImageFetcher."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    def fetch(self, url: str, allowed_hosts: Iterable[str], **_: Any) -> ImageStream:
        return self._harness.fetch(url)


@contextmanager
def a_harness() -> Iterator[Harness]:
    """Provides a harness with its own AWS account in moto."""
    with (
        an_account(),
        put_object_as_s3_does(),
        scaled_delays(0),
        pytest.MonkeyPatch.context() as patches,
    ):
        harness = Harness(load_template(REPOSITORY / "template.yaml", {}), patches)
        http = FakeHttp(harness.answer)
        for function in (poll_tasks, archive_images):
            patches.setattr(
                function,
                "ProviderClient",
                lambda base_urls, **how: ProviderClient(base_urls, http=http, **how),
            )
        patches.setattr(archive_images, "ImageFetcher", lambda: _Fetcher(harness))
        for name, module in list(sys.modules.items()):
            if name.startswith(("functions.", "catchlight.")) and name != "catchlight.models":
                if hasattr(module, "ThreadPoolExecutor"):
                    patches.setattr(module, "ThreadPoolExecutor", InlineExecutor)
                if hasattr(module, "utc_now"):
                    patches.setattr(module, "utc_now", lambda: harness.runner.now)
        # The functions run thousands of times and would log the same lines each time.
        logging.disable(logging.CRITICAL)
        try:
            with harness.runner.intercepted_calls():
                yield harness
        finally:
            logging.disable(logging.NOTSET)
        for function in _FUNCTIONS:
            function.dependencies.cache_clear()
