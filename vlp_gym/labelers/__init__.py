"""Labelers: who says which of two segments follows the task better."""
