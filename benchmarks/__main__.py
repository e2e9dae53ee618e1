"""`make bench`: all benchmarks in turn, each in a process of its own so that none inherits another's memory."""

import subprocess
import sys

NAMES = ("startup", "backbone", "coreset", "search", "pipeline", "fitting", "metrics", "bounded")

if __name__ == "__main__":
    failed = [name for name in NAMES if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
