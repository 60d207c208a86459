"""Set the line numbers of the links [`code`](../file#L1) in the pages beside this file to where the code stands now.

    python docs/relink.py

The code of a link must stand in one line of its file, and in that one only.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parent


def relink(match: re.Match[str]) -> str:
    """The link with the number of the line in which its code stands."""
    code, target = match.groups()
    lines = (DOCS / target).read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines, start=1) if code in line]
    if len(found) != 1:
        raise SystemExit(f"{target} has {code!r} in lines {found or 'none'}: a link needs exactly one.")
    return f"[`{code}`]({target}#L{found[0]})"


for page in sorted(DOCS.glob("*.md")):
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"\[`([^`]+)`\]\((\.\./[^)#]+)#L\d+\)", relink, text), encoding="utf-8")
