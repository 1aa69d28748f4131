"""The `vqtok` command: one file per command, installed as the package `vqtok_cli`."""
