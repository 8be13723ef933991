"""Unit tests of postprox, its commands, its documents and its packages."""
