"""What `vqtok inspect --verify` says of the files of codes."""

from __future__ import annotations

import json

import typer

__all__ = ["verify_files"]


def verify_files(path: str, *, as_json: bool) -> None:
    """Recompute checksums of codes; prints what was looked at and every file that is wrong.

    Raises:
        DataError: some are wrong, or there is nothing to check them against.
    """
    from vqtok.codes import is_on_hub, verify_codes
    from vqtok.errors import DataError
    from vqtok.text import counted
    from vqtok_cli.output import done, say

    if is_on_hub(path):
        raise DataError(
            f"{path} is on the Hub, which keeps checksums itself: --verify is for what `vqtok tokenize` wrote"
        )
    found = verify_codes(path)
    if as_json:
        wrong = [{"file": each.file, "reason": each.reason} for each in found.wrong]
        told = {"path": path, "kind": "codes", "shards": found.shards, "bytes": found.bytes, "wrong": wrong}
        typer.echo(json.dumps(told))
    else:
        for each in found.wrong:
            say(f"{path}/{each.file}: {each.reason}")
    if found.wrong:
        raise DataError(
            f"{counted(len(found.wrong), 'file')} of {path} {'is' if len(found.wrong) == 1 else 'are'} not what was "
            "written: delete what is listed above and run the same `vqtok tokenize` again, which makes it anew where "
            "nothing else is said"
        )
    done(f"{counted(found.shards, 'shard')} of {path} ({counted(found.bytes, 'byte')}) as written", err=as_json)
