"""Analyses of neurons, paths and classes that make passes of their own."""
