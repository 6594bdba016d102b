"""``packlight device``: the devices that have a name, and what each of them has and lacks."""

from __future__ import annotations

import click

from . import options as o


@click.group()
def device() -> None:
    """Name the devices that ``bench --device`` can use, and look at them."""


@device.command("add")
@click.argument("name")
@click.argument("address", metavar="ssh:HOST|adb:SERIAL|local")
@click.option("--python", metavar="PATH", help="The interpreter there [its python3].")
@click.option("--option", "words", multiple=True, metavar="WORD", help="A further word for ssh, such as -p or 2222; may be repeated.")
@click.option("--target", metavar="TARGET", help="The profile that fits it.")
@click.option("--emulated", is_flag=True, help="It is an emulator: its times are never shown as latency.")
@click.option("--force", is_flag=True, help="Replace a device of that name.")
@o.common
def add(
    name: str,
    address: str,
    python: str | None,
    words: tuple[str, ...],
    target: str | None,
    emulated: bool,
    force: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Give a device a NAME. It is not contacted; see 'packlight device check'."""
    import msgspec

    from ..targets.link.known import add_device, parse_device
    from ..targets.load import load_target

    if target is not None:
        load_target(target)
    kind = "emulated" if emulated else "real"
    found = msgspec.structs.replace(parse_device(address), name=name, python=python, options=words, target=target, kind=kind)
    add_device(found, replace=force)
    click.echo(msgspec.json.encode(found).decode() if as_json else f"{name} is {address}; look at it with: packlight device check {name}")


@device.command("list")
@o.common
def list_(as_json: bool, verbose: bool) -> None:
    """List the devices that have a name."""
    import msgspec

    from ..targets.link.known import load_devices

    known = load_devices()
    if as_json:
        click.echo(msgspec.json.encode(known).decode())
        return
    click.echo("local  this machine")
    for one in known.devices:
        told = [f"{one.link}:{one.address}" if one.address else one.link, one.python, one.target, one.kind if one.kind != "real" else None]
        click.echo(f"{one.name}  {', '.join(t for t in told if t)}")


@device.command("remove")
@click.argument("name")
@o.common
def remove(name: str, as_json: bool, verbose: bool) -> None:
    """Take NAME out of the list."""
    import msgspec

    from ..targets.link.known import remove_device

    left = remove_device(name)
    click.echo(msgspec.json.encode(left).decode() if as_json else f"{name} is out of the list")


@device.command("check")
@click.argument("name", metavar="NAME|ssh:HOST|adb:SERIAL|local")
@click.option("--target", metavar="TARGET", help="Look for the runtimes of this target only.")
@o.common
def check(name: str, target: str | None, as_json: bool, verbose: bool) -> None:
    """Say what a device is, which runtimes it has, and how to install what is missing there. Exit 3 where none can run."""
    import msgspec

    from ..bench.device import PACKAGES, check_device
    from ..core.errors import LacksError
    from ..targets.link.known import open_link, parse_device
    from ..targets.load import load_target

    profile = target or parse_device(name).target
    wanted = tuple(dict.fromkeys(r.name for r in load_target(profile).runtimes)) if profile else tuple(PACKAGES)
    with open_link(name) as link:
        found = check_device(link, wanted)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        for line in found.lines():
            click.echo(line)
    if not found.ok:
        raise LacksError(f"device '{name}' can run none of: {', '.join(wanted)}; what is missing stands above")
