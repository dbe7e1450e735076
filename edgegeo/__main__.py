"""`python -m edgegeo`: the command line without its entry-point script."""

from edgegeo.cli.main import run

if __name__ == "__main__":
    run()
