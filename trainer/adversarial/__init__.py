"""Training of the mel VAE and of the vocoder: a network against discriminators."""
