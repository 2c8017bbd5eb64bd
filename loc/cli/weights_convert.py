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
    from loc.weights.tensorflow.convert import convert as read
    from loc.weights.tensorflow.files import save

    if output.suffix != ".safetensors":
        raise ConfigError(f"{output} does not end with .safetensors", f"-o {output.name}.safetensors")
    converted = read(source)
    save(converted, output)
    facts = converted.facts.model_dump(mode="json", exclude_defaults=True)
    values = sum(each.size for each in converted.tensors.values())
    if json:
        print_json({"path": str(output), "tensors": len(converted.tensors), "values": values, **facts})
        return
    print_line(f"{output}: {facts['kind']}, {len(converted.tensors)} tensors, {values} values")
    layers = facts.pop("layers", {})
    for key, value in facts.items():
        print_line(f"  {key}: {value}")
    if strided := [name for name, each in layers.items() if each["stride"] > 1]:
        print_line(f"  strides of 2: {', '.join(strided)}")
