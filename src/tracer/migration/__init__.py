"""Whole runs in and out: import, export and both in one, with a report that proves what arrived."""
