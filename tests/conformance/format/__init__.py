"""The transcript format with its reader and writer, and the requirements of the specification."""
