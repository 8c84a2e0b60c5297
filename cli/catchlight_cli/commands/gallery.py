"""Implements `catchlight gallery`: serves a web page with the stack's tasks and images on this machine."""

import argparse
import contextlib
import sys
import threading
import webbrowser
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.client import TasksClient
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.gallery import GalleryServer


class Gallery(Model):
    """URL of the gallery, valid while the command runs."""

    url: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `gallery` to its parser."""
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (a free one)")
    parser.add_argument("--open", action="store_true", help="open it in your browser")


def run(session: Session) -> ExitStatus:
    """Serves the gallery until Ctrl-C."""
    options = session.options
    with TasksClient.of(session.stack) as api:
        api.page(limit=1)  # fails early: errors of the stack or credentials appear in the terminal, not in a browser
        with GalleryServer(api, port=options.port) as server:
            session.screen.show(Gallery(url=server.url), lambda: _page(server.url))
            sys.stdout.flush()  # a program that reads the URL through a pipe must get it while the command still runs
            if options.open:
                webbrowser.open(server.url)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
    return ExitStatus.FINE


def _page(url: str) -> Iterable[RenderableType]:
    yield Text.assemble("The gallery is at ", (url, "bold cyan"))
    yield Text("It is for you on this machine only: whoever has this address sees what you see. Ctrl-C ends it.", "dim")


COMMAND = Command(
    name="gallery",
    summary="look at tasks and images in your browser",
    description="Serves a page with tasks and images at 127.0.0.1, read with your own credentials, until Ctrl-C.",
    add_arguments=add_arguments,
    run=run,
)
