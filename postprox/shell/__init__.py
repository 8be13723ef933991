"""What touches the operating system: sockets, files, child processes, signals and the log.

Rule: no decision about mail is made here; it is asked for in `postprox.core` and carried out.
"""
