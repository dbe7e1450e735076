"""pip, deciding as it would on another machine: python -m edgegeo.field.foreign_pip ENVIRONMENT PIP-ARGUMENTS...

pip's --platform and --python-version choose wheels by their tags, but conditions on requirements (such as
`python_version < "3.11"`) are still judged by the machine that runs it, so that a set for Python 3.10 made under 3.11
would lack packages (pypa/pip #11664). ENVIRONMENT, JSON, holds the answers of the other machine (PEP 508).
"""

import json
import sys
from importlib import import_module


def main(words: list[str]) -> int:
    """Run pip; its exit code, or 3 where this pip is too different to be told."""
    markers = import_module("pip._vendor.packaging.markers")
    if not hasattr(markers, "default_environment"):
        print("ERROR: this pip can't be told of another machine; pip install 'pip>=24,<27'", file=sys.stderr)
        return 3
    environment = json.loads(words[0])
    vars(markers)["default_environment"] = lambda: dict(environment)
    return int(import_module("pip._internal.cli.main").main(words[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
