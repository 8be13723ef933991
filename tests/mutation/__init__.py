"""Mutation tests. Every small change to the proxy must make a test fail."""
