"""Allows or denies the calls of functions by their roles, and records the permissions that were requested.

    permissions = Permissions(on_denied)
    server = MotoServer(middleware=permissions.around)
    permissions.enforce(deployment)

Only functions are restricted, each by its own role. Calls with other access keys, such as those of tests, are not.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from local import LocalStackError
from local.moto.calls import AwsCall
from local.moto.responses import AwsResponse, access_denied
from local.permissions.decision import ANYONE, Grant, PermissionRequest, decide, grants_that_apply
from local.permissions.deployed import DeployedResources
from local.permissions.grants import read_grants
from local.permissions.required import condition_values, required_permissions
from local.permissions.service_requests import service_requests
from local.template.deployment import Deployment

RecordedCall = tuple[str, str, PermissionRequest]
"""The service and the operation of a call, and one permission that it needed."""


class Permissions:
    """Decides each call of a function by the policies in the template, from which it has read `grants`.

    `on_denied(function, message)` is called for each denied call. Calls of one operation that the same grants allow are
    recorded once.
    """

    def __init__(self, on_denied: Callable[[str, str], None]) -> None:
        self._on_denied = on_denied
        self._lock = threading.Lock()
        self._by_principal: dict[str, list[Grant]] = {}
        self._functions: dict[str, str] = {}
        self._recorded: dict[Any, RecordedCall] = {}
        self.grants: tuple[Grant, ...] = ()
        self.denied: list[RecordedCall] = []

    def enforce(self, deployment: Deployment) -> None:
        """Applies the policies of this deployment from now on.

        Raises:
            LocalStackError: a policy cannot be read, or AWS's services lack a permission that they need to run the
                stack, such as API Gateway's to invoke a function.
        """
        resources = DeployedResources(deployment)
        functions = {deployment.resources[name].ref: name for name, _ in resources.of_type("AWS::Lambda::Function")}
        self.decide_by(read_grants(resources), functions)
        for request in service_requests(deployment, resources):
            if not self._allows("", "", request):
                raise LocalStackError(f"{_denial(request)} Grant it in the template.")

    def decide_by(self, grants: Sequence[Grant], functions: Mapping[str, str]) -> None:
        """Applies these grants from now on; `functions` maps the functions' access keys to logical ids."""
        by_principal: dict[str, list[Grant]] = {}
        for grant in grants:
            by_principal.setdefault(grant.principal, []).append(grant)
        self.grants, self._by_principal, self._functions = tuple(grants), by_principal, dict(functions)

    @property
    def recorded(self) -> tuple[RecordedCall, ...]:
        """The permissions that were requested and allowed."""
        with self._lock:
            return tuple(self._recorded.values())

    def around(self, application: WSGIApplication) -> WSGIApplication:
        """Wraps an application so that only calls allowed by the functions' roles reach it."""

        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            call = AwsCall.of(environ) or AwsCall.of_presigned_link(environ)
            function = self._functions.get(call.function) if call else None
            if call is None or function is None:
                return application(environ, start_response)
            denial = self._denial(call, function)
            if denial is None and call.operation in ("GetObject", "HeadObject"):
                response = AwsResponse.of(application, environ)
                if not response.status.startswith("404") or self._may_list(call, function):
                    return response.send(start_response)
                denial = f"{function} may not s3:ListBucket, so S3 responds with 403 for the missing {call.subject}."
            if denial is None:
                return application(environ, start_response)
            # Unread bytes of this request would be parsed as the next request of the connection.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return access_denied(call, denial).send(start_response)

        return respond

    def _denial(self, call: AwsCall, function: str) -> str | None:
        """Returns the reason why a call is denied, or None if it is allowed."""
        try:
            required = required_permissions(call.service, call.operation, call.parameters)
        except (LocalStackError, KeyError) as exc:
            self._on_denied(function, f"AccessDenied: {exc}")
            return str(exc)
        context = condition_values(call.service, call.parameters)
        for action, resource in required:
            request = PermissionRequest(function, action, resource, context)
            if not self._allows(call.service, call.operation, request):
                message = _denial(request)
                self._on_denied(
                    function, f"AccessDenied: {message} Grant it in the function's Policies in the template."
                )
                return message
        return None

    def _may_list(self, call: AwsCall, function: str) -> bool:
        """Returns whether S3 reports a missing object to the function as 404; without s3:ListBucket it responds 403."""
        bucket = f"arn:aws:s3:::{call.parameters['Bucket']}"
        request = PermissionRequest(function, "s3:ListBucket", bucket, condition_values("s3", call.parameters))
        return decide(request, self._candidates(function))

    def _allows(self, service: str, operation: str, request: PermissionRequest) -> bool:
        applying = grants_that_apply(request, self._candidates(request.principal))
        allowed = decide(request, applying)
        with self._lock:
            if allowed:
                same_use = (service, operation, request.principal, request.action, request.context, applying)
                self._recorded.setdefault(same_use, (service, operation, request))
            else:
                self.denied.append((service, operation, request))
        return allowed

    def _candidates(self, principal: str) -> list[Grant]:
        return [*self._by_principal.get(principal, ()), *self._by_principal.get(ANYONE, ())]


def _denial(request: PermissionRequest) -> str:
    source = "".join(f" for {value}" for key, value in request.context if key == "aws:SourceArn")
    return f"{request.principal} may not {request.action} on {request.resource}{source}."
