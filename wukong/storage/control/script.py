"""The Lua of the control store as it is sent to servers. No I/O but reading the file beside this one."""

import re
from functools import cache
from importlib.resources import files

from wukong.storage.link import Script

_CONSTANTS = re.compile(r"^local ([A-Z_]+(?:, [A-Z_]+)*) = (-?\d+(?:, -?\d+)*)\b.*$", re.MULTILINE)
_COMMENT = re.compile(r"--.*$", re.MULTILINE)


@cache
def control_script() -> Script:
    """Return the script, with its named numbers put in their places."""
    return Script(folded(files(__package__).joinpath("control.lua").read_text()))


def folded(source: str) -> str:
    """Replace the names of numbers in `source` by the numbers, keeping its lines.

    A server makes the script's functions anew in each run, and pays for every local of the script that each of them
    uses: with the constants among them, this took longer than the rest of a small request.
    """
    numbers: dict[str, str] = {}

    def note(match: re.Match[str]) -> str:
        numbers.update(zip(match[1].split(", "), match[2].split(", "), strict=True))
        return ""

    source = _COMMENT.sub("", _CONSTANTS.sub(note, source))
    return re.sub(rf"\b(?:{'|'.join(numbers)})\b", lambda match: numbers[match[0]], source)
