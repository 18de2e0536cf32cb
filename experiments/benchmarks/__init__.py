"""Benchmarks: one runnable module a question, see README.md."""
