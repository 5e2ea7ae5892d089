"""Authentication, scopes, budgets, limits and audit."""
