"""Run folders as another version, or another hand, might have written them."""

import json


def rewritten(folder, **changes):
    """run.json with other fields (None: without them), and without the digest that would tell of it."""
    content = json.loads((folder / "run.json").read_text()) | {"digest": None} | changes
    kept = {name: value for name, value in content.items() if value is not None}
    (folder / "run.json").write_text(json.dumps(kept))
    return folder
