"""`catchlight --completion`: shells complete commands, options and choices."""

import shutil
import subprocess

import pytest

from catchlight_cli.command_line import parser
from catchlight_cli.commands import COMMANDS
from catchlight_cli.completion import SHELLS, completion_script
from catchlight_cli.repair.redriving import Kind


def completed(shell: str, *words: str) -> list[str]:
    """Returns the shell's completions of the last word."""
    line = " ".join(words)
    complete = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _catchlight; printf "%s\\n" "${{COMPREPLY[@]}}"'
    process = subprocess.run(
        [shell, "-c", completion_script("bash", parser()) + complete], capture_output=True, text=True, check=True
    )
    assert process.stderr == ""
    return process.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_options_and_choices() -> None:
    assert set(completed("bash", "catchlight", '""')) >= {command.name for command in COMMANDS}
    assert completed("bash", "catchlight", "resend") == ["resend-events"]
    assert completed("bash", "catchlight", "keys", "s") == ["set"]
    assert completed("bash", "catchlight", "list", "--form") == ["--format"]
    assert completed("bash", "catchlight", "list", "--format", "c") == ["csv"]
    assert completed("bash", "catchlight", "redrive", "--kind", "poll") == [Kind.POLL_DEAD_LETTERS]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_all_commands_and_their_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parser().parse_args(["--completion", shell])
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in script
    for option in ("output-dir", "dry-run", "state-dir", "watch"):
        assert f"-l {option}" in script if shell == "fish" else f"--{option}" in script


@pytest.mark.parametrize(("shell", "check"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")])
def test_the_completion_script_has_valid_syntax(shell: str, check: str) -> None:
    if not (program := shutil.which(shell)):
        pytest.skip(f"{shell} is not installed")
    script = completion_script(shell, parser())
    process = subprocess.run([program, check, "/dev/stdin"], input=script, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
