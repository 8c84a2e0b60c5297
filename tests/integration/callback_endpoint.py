"""The callback endpoint without sockets: requests become events as API Gateway makes them, results become responses."""

import json

from aws_lambda_powertools.utilities.typing import LambdaContext

from functions.receive_callback import app
from local.http_api import Route
from local.http_api_events import HttpRequest, HttpResponse, function_response, message_response, request_event
from local.runtime_api import Outcome

ROUTE = Route("POST", "/callbacks/{provider}/{token+}", "ReceiveCallbackFunction")


def respond(request: HttpRequest, context: LambdaContext) -> HttpResponse:
    """The answer that a client gets.

    Raises:
        Exception: whatever the handler lets out, which Lambda would make a 500 of.
    """
    parameters = ROUTE.match(request.method, request.path)
    if parameters is None:
        return message_response(404, "Not Found")
    event = json.loads(json.dumps(request_event(request, ROUTE.key, parameters)))
    return function_response(Outcome(json.dumps(app.handler(event, context)).encode()))
