"""The rehearsal of a filter with a test client, the real proxy and an upstream test server.

Rule: this package starts the proxy and never changes or imitates it. No module of the proxy imports
this package, so it may use all of the standard library.
"""
