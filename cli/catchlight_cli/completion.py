"""Generates completion scripts for shells, which complete commands, options and the choices of options."""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")

# zsh runs bash's completion functions.
_ZSH = "#compdef catchlight\nautoload -U +X bashcompinit && bashcompinit\n"
_BASH = """\
_catchlight() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    case "$COMP_CWORD:${{COMP_WORDS[1]}} $previous" in
        1:*) words={commands} ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _catchlight catchlight
"""


@dataclass(frozen=True)
class _Word:
    """An option, or a positional argument with choices (`name` is empty)."""

    name: str
    help: str
    choices: tuple[str, ...]
    takes_value: bool


def completion_script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Returns the script that a shell reads: `source <(catchlight --completion bash)`."""
    commands = _subcommands(parser)
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish_lines(commands))
    script = _bash_script(commands)
    return _ZSH + script if shell == "zsh" else script


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[str, list[_Word]]]:
    """Returns for each command its summary and its words."""
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in subparsers._choices_actions}
    return {name: (summaries[name], list(_words(command))) for name, command in subparsers.choices.items()}


def _words(command: argparse.ArgumentParser) -> Iterator[_Word]:
    for action in command._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        choices = tuple(map(str, action.choices or ()))
        if names or choices:
            help_ = (action.help or "").partition(";")[0].partition(" (default")[0]
            yield _Word(names[0] if names else "", help_, choices, takes_value=action.nargs != 0)


def _bash_script(commands: dict[str, tuple[str, list[_Word]]]) -> str:
    cases = []
    for command, (_, words) in commands.items():
        cases += [
            f"        *:{command}\\ {word.name}) words={shlex.quote(' '.join(word.choices))} ;;"
            for word in words
            if word.name and word.choices
        ]
        all_words = " ".join(name for word in words for name in ([word.name] if word.name else word.choices))
        cases.append(f"        *:{command}\\ *) words={shlex.quote(all_words)} ;;")
    names = shlex.quote(" ".join([*commands, "--version", "--completion", "--help"]))
    return _BASH.format(commands=names, cases="\n".join(cases))


def _fish_lines(commands: dict[str, tuple[str, list[_Word]]]) -> Iterator[str]:
    for command, (summary, words) in commands.items():
        yield f"complete -c catchlight -f -n __fish_use_subcommand -a {command} -d {shlex.quote(summary)}"
        condition = shlex.quote(f"__fish_seen_subcommand_from {command}")
        for word in words:
            option = f" -l {word.name.removeprefix('--')}" if word.name else ""
            value = " -r" if word.name and word.takes_value else ""
            choices = f" -f -a {shlex.quote(' '.join(word.choices))}" if word.choices else ""
            yield f"complete -c catchlight -n {condition}{option}{value}{choices} -d {shlex.quote(word.help)}"
