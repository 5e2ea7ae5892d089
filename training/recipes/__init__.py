"""Kinds of training: recipe.py checks a recipe, and one module for each kind trains."""
