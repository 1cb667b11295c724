"""What stands in for BasicSR while a plug-in of one of its forks is imported: the names that components of forks ask for.

Modules, names and arguments are BasicSR's; the code is not. Nothing in Relume imports this: see `core.options.plugins.tree`.
"""
