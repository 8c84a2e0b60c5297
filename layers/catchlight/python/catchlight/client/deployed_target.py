"""Determines the name, region and profile of the deployed stack that a command uses, before any request is sent."""

import os
from pathlib import Path

import boto3
from botocore.exceptions import ConfigParseError, NoRegionError, ProfileNotFound, UnknownRegionError

from catchlight.client.aws_errors import describe_error
from catchlight.client.errors import UsageError
from catchlight.client.local_state import DEFAULT_STATE_DIR, STATE_FILE
from catchlight.client.samconfig import ENVIRONMENT, FILE_NAMES, DeploySettings, read_deploy_settings

DEFAULT_STACK_NAME = "catchlight"


def deployed_target(stack_name: str | None, region: str | None, profile: str | None) -> tuple[str, boto3.Session]:
    """Returns a stack's name and a session for it. None means: the value that `sam deploy` uses in this folder.

    Raises:
        UsageError: the name cannot be determined, or the region or the profile is unknown.
        NoRegionError: neither the options nor a file nor the environment sets a region.
    """
    settings = read_deploy_settings(Path())
    name = stack_name or _default_name(settings)
    # Region and profile in the file belong to the file's stack; they must not be used for another one.
    if settings and name == settings.stack_name:
        region, profile = region or settings.region, profile or settings.profile
    return name, _session(region, profile)


def _default_name(settings: DeploySettings | None) -> str:
    if settings is None:
        _refuse_below_a_project(Path().resolve())
        return DEFAULT_STACK_NAME
    if settings.stack_name is None:
        raise UsageError(
            f"{settings.file_name} has no stack_name in [{ENVIRONMENT}.deploy.parameters] or "
            f"[{ENVIRONMENT}.global.parameters]. Add it there (`sam deploy` needs it as well), or select a stack with "
            "--stack-name."
        )
    return settings.stack_name


def _refuse_below_a_project(folder: Path) -> None:
    """Raises UsageError in a subfolder of a project that configures a stack: the default name could be wrong."""
    for parent in folder.parents:
        for name in (*FILE_NAMES, f"{DEFAULT_STATE_DIR}/{STATE_FILE}"):
            if (parent / name).is_file():
                raise UsageError(
                    f"{folder} has no samconfig file, but there is {parent / name}. Run the command in {parent}, or "
                    "select a stack with --stack-name."
                )


def _session(region: str | None, profile: str | None) -> boto3.Session:
    # boto3 reads AWS_DEFAULT_REGION only; the AWS CLI reads AWS_REGION as well.
    region = region or os.environ.get("AWS_REGION") or None
    try:
        session = boto3.Session(region_name=region, profile_name=profile)
    except (ProfileNotFound, ConfigParseError) as exc:
        raise UsageError(describe_error(exc)) from exc
    if not session.region_name:  # an empty variable counts as unset; botocore would use it as a region
        raise NoRegionError
    _check_region(session)
    return session


def _check_region(session: boto3.Session) -> None:
    try:
        partition = session.get_partition_for_region(session.region_name)
    except UnknownRegionError:
        partition = ""
    if not partition or session.region_name not in session.get_available_regions("cloudformation", partition):
        raise UsageError(
            f"There is no AWS region {session.region_name!r}. Correct it (--region, the samconfig file, AWS_REGION or "
            "your AWS profile). If it is a new region, update boto3, which contains the list of regions."
        )
