"""SMTP clients, upstream servers and proxy processes for all tests except the suite's tests."""
