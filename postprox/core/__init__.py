"""What the proxy decides: the protocol, the verdict, the wire.

Rule: nothing here touches the operating system. Octets, events and the clock come in, actions go
out. ``tests/unit/test_architecture.py`` holds it.
"""
