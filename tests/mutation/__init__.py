"""Who tests the tests: every small change to the proxy must make a test fail."""
