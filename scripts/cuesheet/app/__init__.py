"""What a person runs: the command `cuesheet` and its subcommands.

May import every other package.
"""
