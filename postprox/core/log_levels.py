"""How important a line of the log is.

Rule: numbered as in syslog(3), where a smaller number is more important.
"""

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
