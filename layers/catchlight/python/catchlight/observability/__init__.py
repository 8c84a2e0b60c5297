"""Structured log lines and metrics in CloudWatch's embedded metric format."""
