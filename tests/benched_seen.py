"""Imported by a process that waits for methods: notes what it had imported by then, in the folder it is in."""

import json
import sys
from pathlib import Path

Path("seen.json").write_text(json.dumps(sorted(m for m in sys.modules if m.startswith("prosect."))))
