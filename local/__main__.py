"""Runs the whole stack: `python -m local up` until Ctrl-C; `python -m local demo` shows how it works."""

import argparse
import math
import os
import signal
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

from local import REPOSITORY, LocalStackError
from local.environment import ignore_user_settings

# Maximum time from Ctrl-C or SIGTERM to the end of the process. Supervisors such as Docker send SIGKILL after 10 s.
STOP_SECONDS = 8.0
_PACKAGES = (REPOSITORY / "layers" / "catchlight" / "python", REPOSITORY / "cli")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(arguments)
    ignore_user_settings()
    # All signals that end a program raise KeyboardInterrupt, also while the stack is still starting.
    ending = threading.Event()

    def interrupt(*_: object) -> None:
        if not ending.is_set():  # a second Ctrl-C must not interrupt the cleanup
            ending.set()
            end_process_within(STOP_SECONDS)
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # SIGHUP: the terminal was closed
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, interrupt)
    # The stack itself imports the layer's package and the command line's from the sources of this checkout.
    sys.path[1:1] = map(str, _PACKAGES)
    try:
        return _up(options) if options.command == "up" else _demo(options)
    except LocalStackError as exc:
        from catchlight_cli.control_characters import printable

        print(f"error: {printable(str(exc))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if options.command == "up" else 130


def end_process_within(seconds: float) -> None:
    """Ends this process, and with it its sandboxes, if it still runs after this time.

    The next stack with the same state folder removes the files that this process has left there.
    """

    def end() -> None:
        print(f"error: the stack did not stop within {seconds:g} s, so it was ended", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _up(options: argparse.Namespace) -> int:
    from rich.text import Text

    from catchlight.providers import PROVIDERS
    from catchlight_cli.console import SafeConsole
    from catchlight_cli.interruption import wait_for_interruption
    from local.artefact import built_artefact
    from local.http.api_page import write_api_page
    from local.stack import LocalStack

    if unknown := {provider for provider, _ in options.provider_url if provider not in PROVIDERS}:
        known = ", ".join(sorted(PROVIDERS))
        raise LocalStackError(f"--provider-url: unknown provider {', '.join(sorted(unknown))}. Choose from {known}.")
    console = SafeConsole()
    artefact = built_artefact(lambda message: console.print(Text(message), soft_wrap=True)) if options.built else None
    stack = LocalStack(
        port=options.port,
        aws_port=options.aws_port,
        time_scale=options.time_scale,
        state_dir=options.state_dir,
        provider_urls=dict(options.provider_url),
        image_hosts=options.allow_image_host,
        webhook_url=options.webhook_url or "",
        simulator=options.simulator,
        parameters=dict(options.parameter),
        artefact=artefact,
        on_error=lambda source, message: console.print(Text(f"{source} ", "bold red"), Text(message), soft_wrap=True),
    )
    with stack:
        entries = {name.replace("_", " "): value for name, value in stack.info.items() if isinstance(value, str)}
        gallery = entries.pop("gallery url", None)  # printed last, so that users find it
        if stack.info["tasks_api_url"]:
            entries["tasks api reference"] = write_api_page(options.state_dir).as_uri()
        callbacks = {f"callback {provider}": url for provider, url in stack.info["callback_urls"].items()}
        for name, value in {**entries, "logs": options.state_dir / "logs", **callbacks}.items():
            if value:
                # Not a table: it would truncate values that users copy.
                console.print(Text(f"{name:<22}", "dim"), Text(str(value)), soft_wrap=True)
        if artefact:
            console.print(Text(f"{'functions':<22}", "dim"), Text(f"as built, in {artefact.folder}"), soft_wrap=True)
        console.print("Ready. Ctrl-C ends everything.", style="green")
        if gallery:
            console.print(Text(f"\n{'Gallery':<22}", "bold"), Text(gallery, "bold cyan"), soft_wrap=True)
        wait_for_interruption()
    return 0


def _demo(options: argparse.Namespace) -> int:
    from local.demo import main as demo

    return demo(options.state_dir, built=options.built)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summary = "start the stack and keep it running until Ctrl-C"
    up = commands.add_parser("up", help=summary, description=summary)
    up.add_argument(
        "--port",
        type=int,
        default=3000,
        help="port of the callback API; the tasks API gets the next one; 0: two free ports (3000)",
    )
    up.add_argument("--aws-port", type=int, default=0, help="port of the AWS endpoint; 0: a free port (0)")
    up.add_argument(
        "--time-scale",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="factor for the waits of polling, retries, schedules and redelivery; 0.05: 20 times faster (1.0)",
    )
    up.add_argument(
        "--state-dir", type=Path, default=".local", metavar="FOLDER", help="folder for stack.json and logs (.local)"
    )
    up.add_argument(
        "--provider-url",
        type=_provider_url,
        action="append",
        default=[],
        metavar="PROVIDER=URL",
        help="base URL of a provider's API instead of the simulator's; repeatable",
    )
    up.add_argument(
        "--allow-image-host",
        action="append",
        type=_host_port,
        default=[],
        metavar="HOST:PORT",
        help="also download images from this address, by plain http; repeatable",
    )
    up.add_argument(
        "--webhook-url",
        type=_web_url,
        metavar="URL",
        help="send each task event to this URL as a signed webhook; http only to this machine: http://127.0.0.1:PORT/PATH",
    )
    up.add_argument(
        "--no-simulator", dest="simulator", action="store_false", help="do not start the simulated providers"
    )
    up.add_argument(
        "--parameter",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a parameter of the template; repeatable",
    )
    _add_built(up)
    summary = "run tasks of all providers through the stack and check every outcome"
    demo = commands.add_parser("demo", help=summary, description=summary)
    demo.add_argument(
        "--state-dir",
        type=Path,
        default=".local/demo",
        metavar="FOLDER",
        help="folder for images and logs (.local/demo)",
    )
    _add_built(demo)
    return parser


def _add_built(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--built",
        action="store_true",
        help="run the functions that `sam build` makes, isolated from the sources and the environment; builds first if "
        "there is no build for this machine or a source has changed",
    )


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _provider_url(text: str) -> tuple[str, str]:
    provider, _, url = text.partition("=")
    parts = urlsplit(url)
    if not (provider and parts.scheme in ("http", "https") and parts.hostname):
        raise argparse.ArgumentTypeError(f"{text!r} is not PROVIDER=URL")
    return provider, url


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost"))):
        raise argparse.ArgumentTypeError(f"{text!r} is neither an https URL nor http://127.0.0.1:PORT/PATH")
    return text


def _host_port(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not (host and separator and port.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
