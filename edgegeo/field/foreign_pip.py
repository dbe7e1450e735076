"""pip, deciding as it would on another machine: python -m edgegeo.field.foreign_pip ENVIRONMENT PIP-ARGUMENTS...

pip's --platform and --python-version choose wheels by their tags, but conditions on requirements (such as
`python_version < "3.11"`) are still judged by the machine that runs it, so that a set for Python 3.10 made under 3.11
would lack packages (pypa/pip #11664). ENVIRONMENT, JSON, holds the answers of the other machine (PEP 508).
"""

import json
import sys
from importlib import import_module

OLDEST = (23, 1)
"""The first pip that resolves for another platform without installing."""


def main(words: list[str]) -> int:
    """Run pip; its exit code, or 3 where there is no pip that can be told."""
    try:
        version = str(import_module("pip").__version__)
        markers = import_module("pip._vendor.packaging.markers")
    except ImportError:
        print("ERROR: there is no pip beside edgegeo; python -m ensurepip", file=sys.stderr)
        return 3
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST or not hasattr(markers, "default_environment"):
        print(f"ERROR: pip {version} can't resolve for another machine; pip install -U 'pip>=25.1'", file=sys.stderr)
        return 3
    environment = json.loads(words[0])
    vars(markers)["default_environment"] = lambda: dict(environment)
    return int(import_module("pip._internal.cli.main").main(words[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
