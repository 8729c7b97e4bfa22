"""Optional packages."""
