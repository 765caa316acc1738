"""Run `moehub` commands one after the other in this process, as a person at a terminal would.

python -m tests.moehub.terminal_session '["merge", …]' '["eval", …]'
"""

import json
import sys

from moehub.cli import main

MARK = "=" * 20
"""Stands between two commands' outputs."""

if __name__ == "__main__":
    for command in sys.argv[1:]:
        main(json.loads(command), standalone_mode=False)
        sys.stdout.write(f"\n{MARK}\n")
        sys.stdout.flush()
