"""The whole proving ground by one command: the world, the tiny family trained on it, and its score."""
