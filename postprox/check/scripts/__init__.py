"""Finds mistakes in the filter command, and in the shell and Python scripts that it runs.

Rule: the modules depend only on the text of a script. They open no files and execute nothing.
"""
