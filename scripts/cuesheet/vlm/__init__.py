"""The client's side of a request: prompts, messages, reply models, parsing, coordinates by model
family, and the connection to the run's gateway. Knows no episode.

May import `config` and the top-level modules.
"""
