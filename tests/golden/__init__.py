"""Committed pictures that today's renders must resemble."""
