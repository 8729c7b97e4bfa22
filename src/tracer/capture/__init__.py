"""We listen here: gradients, samples, the system, git, the environment; each module emits events and knows no run."""
