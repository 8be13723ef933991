"""Tests of single modules, without a process and without a network."""
