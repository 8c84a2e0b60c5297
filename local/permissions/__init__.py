"""Allows or denies AWS calls in the local stack by the permissions that the template grants, as IAM does in AWS."""
