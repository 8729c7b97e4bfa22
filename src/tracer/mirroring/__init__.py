"""Live mirrors: lanes that read a run's journal and hand it to back ends, in a process of their own."""
