"""Tests with real mail, for which a private Postfix runs before and after the proxy."""
