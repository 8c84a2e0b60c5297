"""Implements `catchlight gallery`: serves a web page with the stack's tasks and images on this machine."""

import argparse
import contextlib
import tempfile
import webbrowser
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from catchlight.client import TasksClient
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.gallery import GalleryServer, StackReader, TaskActions
from catchlight_cli.gallery.thumbnails import IS_AVAILABLE, Thumbnails, default_folder
from catchlight_cli.interruption import wait_for_interruption

_MAX_PORT = 65_535


class Gallery(Model):
    """URL of the gallery, valid while the command runs."""

    url: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (default: a free port)")
    parser.add_argument("--open", action="store_true", help="open the gallery in your browser")


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= _MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {_MAX_PORT}")
    return int(text)


def run(session: Session) -> ExitStatus:
    """Serves the gallery until Ctrl-C."""
    options = session.options
    with TasksClient.of(session.stack) as api:
        thumbnails = Thumbnails(default_folder()) if IS_AVAILABLE else None
        # An error of the stack or the credentials is printed in the terminal, before the page is served.
        api.page(limit=1)
        with (
            closing(TaskActions(lambda: session.stack)) as actions,
            closing(StackReader(lambda: session.stack)) as reader,
            GalleryServer(api, port=options.port, actions=actions, thumbnails=thumbnails, reader=reader) as server,
        ):
            session.output.show(Gallery(url=server.url), lambda: render(server.url))
            with redirecting_page(server.url) as page, contextlib.suppress(KeyboardInterrupt):
                if options.open:
                    webbrowser.open(page.as_uri())
                wait_for_interruption()
    return ExitStatus.SUCCESS


@contextlib.contextmanager
def redirecting_page(url: str) -> Iterator[Path]:
    """Yields an HTML file that redirects a browser to the URL. Only this user can read it.

    All users of the machine can read the browser's command line: it contains the name of the file, not the secret URL.
    """
    with tempfile.TemporaryDirectory(prefix="catchlight-gallery-") as folder:  # mode 0700
        page = Path(folder, "gallery.html")
        page.write_text(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}">\n')
        page.chmod(0o600)
        yield page


def render(url: str) -> Iterable[RenderableType]:
    """Renders the gallery's URL for the terminal."""
    yield Text.assemble("The gallery is at ", (url, "bold cyan"))
    yield Text("It reads the stack with your credentials: do not share the URL. Ctrl-C stops it.", "dim")


COMMAND = Command(
    name="gallery",
    summary="show tasks and images in your browser",
    description="Serve a web page with tasks and images at 127.0.0.1 until Ctrl-C. It reads the stack with your own "
    "credentials.",
    add_arguments=add_arguments,
    run=run,
)
