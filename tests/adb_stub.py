"""A stand-in for the ``adb`` program whose device is this machine: the command lines and answers of the real one, without a daemon."""

from __future__ import annotations

from pathlib import Path

STUB = """#!/bin/sh
[ "$1" = connect ] && { echo "connected to $2"; exit 0; }
[ -f "%(folder)s/say" ] && { cat "%(folder)s/say" >&2; exit 1; }
shift 2
case $1 in
  get-state) echo device ;;
  features) printf 'shell_v2\\ncmd\\n' ;;
  shell) shift 2; exec setsid -w sh -c "$*" ;;
  push) if cp -R "$2" "$3" 2>"%(folder)s/err"; then echo "1 file pushed."; else sed 's/^cp/adb: error/' "%(folder)s/err"; exit 1; fi ;;
  *) echo "adb: unknown command $1" >&2; exit 1 ;;
esac
"""


def install(folder: Path) -> Path:
    """Writes the stub. A file ``say`` beside it makes every command but connect fail with that text, as a lost device does."""
    program = folder / "adb"
    program.write_text(STUB % {"folder": folder})
    program.chmod(0o755)
    return program
