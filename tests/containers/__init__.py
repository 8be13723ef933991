"""Tests of packaging/container/ and docs/containers.md without a container runtime."""
