"""Learns a reward from labels: the preference loss and the reward ensemble."""
