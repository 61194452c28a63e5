"""The whole way: from a folder of photographs to a model in use, each step by the command that a user would give."""
