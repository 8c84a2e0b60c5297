"""Defines a function's settings from the template and builds the environment variables of its sandboxes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.account import REGION, local_arn


@dataclass(frozen=True)
class FunctionConfiguration:
    """The settings of a function in the template."""

    name: str
    handler: str
    folder: Path
    runtime: str = "python3.13"
    layers: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 3
    memory_mb: int = 128
    log_group: str = ""
    # The folder that replaces /var/runtime for a function of the artefact. Its sandboxes import from this folder, the
    # function's own folder, its layers and the standard library. None: a function of the sources, whose sandboxes also
    # import from the environment of the local stack.
    runtime_dir: Path | None = None

    @property
    def arn(self) -> str:
        return local_arn("lambda", f"function:{self.name}")


def sandbox_environment(configuration: FunctionConfiguration, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns a sandbox's environment variables: those that Lambda sets, those in the template, and `environment`.

    Of the user's variables, only PATH and TMPDIR are included.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    inherited = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    runtime_dir = configuration.runtime_dir
    return {
        **inherited,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        # As in Lambda, the runtime's folder. For functions of the sources, the layers: they precede the packages of the
        # environment.
        "PYTHONPATH": str(runtime_dir) if runtime_dir else os.pathsep.join(map(str, configuration.layers)),
        "PYTHONUNBUFFERED": "1",
        **({"LAMBDA_RUNTIME_DIR": str(runtime_dir)} if runtime_dir else {}),
        "LAMBDA_TASK_ROOT": str(configuration.folder),
        "_HANDLER": configuration.handler,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{configuration.runtime}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_LAMBDA_FUNCTION_NAME": configuration.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(configuration.memory_mb),
        "AWS_LAMBDA_FUNCTION_TIMEOUT": f"{configuration.timeout_seconds:g}",
        "AWS_LAMBDA_LOG_GROUP_NAME": configuration.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        # In Lambda these are the role's credentials; here they identify the function that sends a request.
        "AWS_ACCESS_KEY_ID": configuration.name,
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_SESSION_TOKEN": "local",
        # A profile in the home folder must not send a handler's requests to real AWS.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        **environment,
        **configuration.environment,
    }
