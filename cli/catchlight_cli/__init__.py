"""The `catchlight` command line: operates a stack and uses its tasks, in AWS or on the local machine."""
