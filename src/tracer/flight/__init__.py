"""The flight recorder: the last steps in memory, capsules on disk, replay, the origin of a NaN, and what-if runs."""
