"""The permanent proof: what becomes of every message while everything round the proxy fails."""
