"""The interface to the operating system: sockets, files, child processes, signals and the log.

Rule: these modules make no decisions about mail. They perform the actions that `postprox.core`
requests.
"""
