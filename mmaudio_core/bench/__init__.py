"""Times, memory and errors of every stage, for ``mmaudio bench``."""
