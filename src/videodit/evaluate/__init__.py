"""Scores: what a model makes, judged by what it was asked for."""
