"""Speed and memory, measured on the real daemon against the local server: `python -m tests.bench` prints a table."""
