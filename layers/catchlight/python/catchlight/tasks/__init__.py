"""The tasks table, its indexes, and the registration of tasks."""
