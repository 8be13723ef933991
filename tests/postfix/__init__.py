"""Tests with real mail: a private Postfix before and behind the proxy."""
