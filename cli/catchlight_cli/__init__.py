"""The `catchlight` command line, for operating a stack or developing with one, in AWS or on the local machine."""
