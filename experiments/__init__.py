"""Configs, benchmarks and launchers beside the package."""
