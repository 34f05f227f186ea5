"""Evaluation: stored predictions and printed tables in, numbers, intervals, tables and figures out."""
