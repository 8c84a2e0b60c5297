"""Allows or denies AWS calls in the local stack by the permissions that the template grants, as IAM does in AWS."""

from local.permissions.decision import Grant, PermissionRequest, decide, grants_that_apply
from local.permissions.enforcement import Permissions

__all__ = ["Grant", "PermissionRequest", "Permissions", "decide", "grants_that_apply"]
