"""The subcommands of ``relume``, one file each; `core.cli` finds them by themselves and says what such a file has."""
