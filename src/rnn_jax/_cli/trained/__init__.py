"""What the command does with the network of a run: `sample` continues a text, `export` writes files."""
