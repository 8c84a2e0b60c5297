"""Implements `catchlight keys`: sets, lists and removes the API keys and webhook keys of the providers."""

import argparse
import getpass
import sys
from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from catchlight.aws.secrets import CACHE_SECONDS, stripped
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.errors import SettingsError
from catchlight.models import Model
from catchlight.providers import PROVIDERS
from catchlight_cli.arguments import add_provider
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.factories import provider_client
from catchlight_cli.health.provider_keys import (
    API_KEY,
    WEBHOOK_KEY,
    ApiKey,
    KeyStatus,
    WebhookKey,
    check_api_key,
    check_webhook_key,
    key_problem,
    read_secret,
    stored_keys,
    try_api_key,
    write_key,
)
from catchlight_cli.output import new_table
from catchlight_cli.text_input import STANDARD_INPUT, read_text

_COLORS = {KeyStatus.VALID: "green", KeyStatus.MISSING: "dim", KeyStatus.NOT_TRIED: "yellow"}


class Keys(Model):
    """The keys of all providers."""

    api_keys: tuple[ApiKey, ...]
    webhook_keys: tuple[WebhookKey, ...]

    @property
    def has_problem(self) -> bool:
        """Whether a stored key cannot be used, or no API key is stored."""
        statuses = {key.status for key in self.api_keys}
        return (
            any(key.problem for key in self.webhook_keys)
            or statuses == {KeyStatus.MISSING}
            or not statuses <= {KeyStatus.VALID, KeyStatus.MISSING, KeyStatus.NOT_TRIED}
        )


class ChangedKey(Model):
    """A key that was stored or removed."""

    provider: str
    key: str  # "apiKey" or "webhookKey"
    is_set: bool
    was_set: bool | None = None  # whether the removed key existed; None: the key was stored, not removed
    trial: ApiKey | None = None  # None: the key was not tried


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", choices=("set", "list", "remove"), help="set or remove a key of a provider, or list the keys of all"
    )
    add_provider(parser, nargs="?", help_="id of the provider, for set and remove")
    parser.add_argument(
        "--webhook-key", action="store_true", help="set or remove the key that signs callbacks, instead of the API key"
    )
    parser.add_argument("--no-trial", action="store_true", help="for set: store the API key without trying it first")


def run(session: Session) -> ExitStatus:
    """Runs the action. Returns FAILURE if `list` finds a problem."""
    options = session.options
    if options.action == "list":
        if options.provider or options.webhook_key or options.no_trial:
            raise UsageError(
                "`keys list` shows the keys of all providers, and accepts no PROVIDER, --webhook-key or --no-trial."
            )
        return _list(session)
    if not options.provider:
        raise UsageError(f"`keys {options.action}` needs a provider: {', '.join(PROVIDERS)}.")
    name = WEBHOOK_KEY if options.webhook_key else API_KEY
    if options.action == "set":
        changed = _set(session, name)
    else:
        was_set = write_key(session.stack, options.provider, name, None)
        changed = ChangedKey(provider=options.provider, key=name, is_set=False, was_set=was_set)
    session.output.show(changed, lambda: _render_change(changed))
    return ExitStatus.SUCCESS


def _list(session: Session) -> ExitStatus:
    try:
        stored = stored_keys(read_secret(session.stack))
    except SettingsError as exc:
        advice = "Correct it in the AWS console, or replace it by {} and set every key again."
        raise CatchlightError(f"{exc}. {advice}") from exc
    with provider_client(session.stack) as client:
        tried = session.output.track(stored.values(), "Trying the keys", total=len(stored))
        api_keys = tuple(check_api_key(client, keys) for keys in tried)
    keys = Keys(api_keys=api_keys, webhook_keys=tuple(map(check_webhook_key, stored.values())))
    session.output.show(keys, lambda: _render(keys))
    return ExitStatus.FAILURE if keys.has_problem else ExitStatus.SUCCESS


def _set(session: Session, name: str) -> ChangedKey:
    provider = PROVIDERS[session.options.provider]
    if name == WEBHOOK_KEY and not provider.signs_callbacks:
        raise UsageError(f"{provider.id} does not sign callbacks: with a webhook key, every callback would be refused.")
    stack = session.stack  # before the prompt: the user sees which stack gets the key
    key = _read_key(f"{'Webhook' if name == WEBHOOK_KEY else 'API'} key of {provider.id}: ")
    if problem := key_problem(key):
        raise CatchlightError(f"The text {problem}. Nothing was stored.")
    key, trial = stripped(key), None
    if name == API_KEY and not session.options.no_trial:
        with session.output.working("Trying the key"), provider_client(stack) as client:
            trial = try_api_key(client, provider, key)
        if trial.status in (KeyStatus.REFUSED, KeyStatus.NOT_TRIED):
            instead = "" if trial.status is KeyStatus.REFUSED else " Repeat the command later, or with --no-trial."
            raise CatchlightError(f"Nothing was stored: {trial.detail}.{instead}")
    write_key(stack, provider.id, name, key)
    return ChangedKey(provider=provider.id, key=name, is_set=True, trial=trial)


def _read_key(prompt: str) -> str:
    """Prompts for a key, which the terminal does not show, or reads it from stdin if that is no terminal."""
    if sys.stdin.isatty():
        try:
            return getpass.getpass(prompt)
        except EOFError:  # Ctrl-D
            return ""
    try:
        return read_text(STANDARD_INPUT)
    except UnicodeDecodeError as exc:
        raise UsageError("stdin is not text.") from exc


def _render(keys: Keys) -> Iterable[RenderableType]:
    table = new_table("Provider", "API key", "Credits", "Webhook key", right=("Credits",))
    for api_key, webhook_key in zip(keys.api_keys, keys.webhook_keys, strict=True):
        table.add_row(
            api_key.provider,
            Text(api_key.status, _COLORS.get(api_key.status, "red")),
            "" if api_key.credits is None else f"{api_key.credits:,g}",
            Text("set", "red" if webhook_key.problem else "") if webhook_key.is_set else Text("not set", "dim"),
        )
    yield table
    for api_key in keys.api_keys:
        if api_key.next_step:
            yield _advice(f"{api_key.provider} API key {api_key.status}: {api_key.explanation}", api_key.next_step)
    for webhook_key in keys.webhook_keys:
        if webhook_key.problem:
            yield _advice(f"{webhook_key.provider} webhook key: {webhook_key.problem}", webhook_key.next_step)


def _advice(problem: str, next_step: str) -> Text:
    return Text.assemble(f"\n{problem}.\n", (f"Next: {next_step}", "yellow"))


def _render_change(changed: ChangedKey) -> Iterable[RenderableType]:
    name = "webhook key" if changed.key == WEBHOOK_KEY else "API key"
    if changed.was_set is False:
        yield Text(f"{changed.provider} has no {name}: nothing was removed.", "yellow")
        return
    if not changed.is_set:
        minutes = CACHE_SECONDS // 60
        yield Text(
            f"The {name} of {changed.provider} is removed. Every function stops using it within {minutes} minutes."
        )
        return
    if changed.trial and changed.trial.status is KeyStatus.OUT_OF_CREDITS:
        yield Text(f"{changed.provider} accepts the key, but the account has no credits.", "yellow")
    elif changed.trial:
        credits_left = changed.trial.credits
        yield Text(
            f"{changed.provider} accepts the key" + ("." if credits_left is None else f": {credits_left:,g} credits.")
        )
    yield Text(f"✓ Stored. Every function uses it within {CACHE_SECONDS // 60} minutes.", "green")
    if changed.key == WEBHOOK_KEY:
        yield "From then on, the stack refuses callbacks without a valid signature."
    else:
        yield "To retry the tasks that failed: `catchlight redrive --all` and `catchlight redrive --kind timed-out`."


COMMAND = Command(
    name="keys",
    summary="set, list and remove the API keys of the providers",
    add_arguments=add_arguments,
    run=run,
    description="""\
`keys set PROVIDER` prompts for an API key without showing it, or reads it from stdin, sends a trial request with it to
the provider, and stores it in the provider keys secret; the other keys in the secret stay. `keys list` tries every
stored API key, and shows which ones are valid, refused, out of credits or missing, and the consequences.
`keys remove PROVIDER` removes a key.""",
)
