"""The operating system: sockets, files, child processes, signals and the log.

Rule: these modules make no decision about mail. `postprox.core` decides, and they perform its
actions.
"""
