"""What can be trained: recipe.py checks what was asked for, one module for each kind trains."""
