"""Recipes that come with vidloop: one YAML file for each way to run a round."""
