"""Faults of the store and of workers: what a real proxy does while they last, and afterwards."""
