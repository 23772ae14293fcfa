"""The Python API: trained models."""
