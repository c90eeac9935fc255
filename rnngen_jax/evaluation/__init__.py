"""Scores and pictures of trained generators."""
