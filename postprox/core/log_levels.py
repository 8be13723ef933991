"""The log levels.

Rule: the numbers are those of syslog(3). A lower number means a more important level.
"""

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7
