"""Hooks and discovery: what a plugin is, where plugins are found, and how an optional package is asked for.

optional.py    an optional package and the command that brings it
kinds.py       the classes a plugin derives from, and what it says of itself
interfaces.py  what a back end, a collector and a framework can be asked for
discovery.py   entry points and folders
schema.py      the check of a plugin's settings
lifecycle.py   from found to active, one broken plugin at a time
"""

from tracer.plugins.optional import missing, needs

__all__ = ["missing", "needs"]
