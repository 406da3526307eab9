"""The subcommands of ``jointregseg``, one file each; ``add(commands)`` adds a subcommand to the parser.

Nothing here imports torch before a command runs, so that ``--help`` answers at once.
"""
