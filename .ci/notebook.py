"""Run a notebook from its first cell to its last, and write it with what its cells put out; no other page is touched.

    python .ci/notebook.py FROM TO

The exit status is 1 if a cell fails. The kernel is this Python, talks through sockets in a directory of its own, and
reads nobody's settings.
"""

import os
import sys
import tempfile
from pathlib import Path


def main(source: Path, target: Path) -> None:
    """Run the cells of source with its directory as the current one, and write target."""
    with tempfile.TemporaryDirectory(prefix="nb-") as directory:
        for place in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            os.environ[place] = directory
        # They read these when they are imported.
        import nbformat
        from nbclient import NotebookClient
        from traitlets.config import Config

        notebook = nbformat.read(source, as_version=4)
        try:
            NotebookClient(
                notebook,
                timeout=120,
                kernel_name="python3",
                resources={"metadata": {"path": source.parent}},
                config=Config(KernelManager={"transport": "ipc", "ip": f"{directory}/kernel"}),
            ).execute()
        finally:
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
