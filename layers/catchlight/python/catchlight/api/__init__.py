"""The tasks API: models of its requests and responses, task queries, and submissions that are sent at most once."""
