"""The interface to the operating system: sockets, files, child processes, signals and the log.

Rule: these modules make no decisions about mail. The modules perform the actions that
`postprox.core` requests.
"""
