"""``loc weights convert``: TensorFlow's archives of DELF and DELG as one file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loc.cli.console import Json, print_json, print_line


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="ARCHIVE_OR_DIR",
            help="A released .tar.gz, the folder it unpacks to, or a checkpoint's NAME.index.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    json: Json = False,
) -> None:
    """Read weights of DELF, DELG or a Detect-to-Retrieve codebook without TensorFlow."""
    from loc.errors import ConfigError
    from loc.weights.tensorflow import convert as conversion

    if output.suffix != ".safetensors":
        raise ConfigError(f"{output} does not end with .safetensors", f"-o {output.name}.safetensors")
    converted = conversion.convert(source)
    conversion.save(converted, output)
    facts = converted.facts
    values = sum(each.size for each in converted.tensors.values())
    if json:
        print_json({"path": str(output), "tensors": len(converted.tensors), "values": values, **facts})
        return
    print_line(f"{output}: {facts['kind']}, {len(converted.tensors)} tensors, {values} values")
    for key, value in facts.items():
        if key != "layers":
            print_line(f"  {key}: {value}")
    strides = [name for name, each in facts.get("layers", {}).items() if each["stride"] > 1]
    if strides:
        print_line(f"  strides of 2: {', '.join(strides)}")
