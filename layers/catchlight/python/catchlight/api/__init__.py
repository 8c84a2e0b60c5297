"""The tasks API: models of its requests and responses, queries of tasks, and submissions that are sent at most once."""
