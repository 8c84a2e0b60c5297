"""Serves API Gateway HTTP APIs on the loopback address."""
