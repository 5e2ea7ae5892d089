"""Recipes of training: recipe.py checks a recipe, and every kind of recipe has a training module."""
