"""Tests a filter with a test client, the real proxy and an upstream test server.

Rule: this package runs the real proxy and never changes or imitates it. No module of the proxy
imports this package, so it may use the whole standard library.
"""
