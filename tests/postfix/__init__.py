"""Tests that send real mail through a private Postfix before and after the proxy."""
