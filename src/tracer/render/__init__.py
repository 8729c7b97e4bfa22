"""Findings → text, JSON, CSV and pictures: pure functions, values in, text or bytes out."""
