"""The inference service in a process where no package outside of the extra `inference` can be imported."""

import runpy
import sys

BLOCKED = ("torch", "transformers", "fracast", "chronos", "accelerate", "pynvml", "scipy", "pandas", "polars")

if __name__ == "__main__":
    # An import of a name that stands for None raises ModuleNotFoundError, and find_spec() finds nothing.
    sys.modules.update(dict.fromkeys(BLOCKED))
    runpy.run_module("inference", run_name="__main__", alter_sys=True)
