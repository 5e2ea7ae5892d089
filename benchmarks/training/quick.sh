#!/usr/bin/env bash
# A machine of tests: quick.py beside this script instead of a recipe.
exec "$PYTHON" -S -P "$(dirname "$0")/quick.py"
