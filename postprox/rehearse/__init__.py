"""The rehearsal of a filter: a client, the real proxy, a test server upstream, and a report.

Rule: this package starts the proxy and never changes or imitates it. No module of the proxy imports
this package, so it may use all of the standard library.
"""
