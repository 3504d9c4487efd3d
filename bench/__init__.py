"""Measurements. Never imported by the product; what counts are ratios between things measured in the same run."""
