"""The tasks API: its request and response models, queries of tasks, and submissions that are sent at most once."""
