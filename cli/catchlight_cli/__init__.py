"""`catchlight`: the command line of people who operate a stack or build on one, in AWS or on their machine."""
