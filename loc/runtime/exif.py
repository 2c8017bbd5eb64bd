"""What EXIF says of where and when a photo was taken; a value that lies counts as none.

Cameras write zero denominators, NaN, places off the globe, and 0° N 0° E where they have no fix; a
photo with such data is a photo without a position.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
from PIL import Image

from loc.runtime.decoding import DAMAGE, exif_tables, exif_text
from loc.types import GpsPosition

_GPS_IFD = 0x8825
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE, _STATUS = 1, 2, 3, 4, 5, 6, 9
_DATE_TIME, _TAKEN, _TAKEN_FRACTION = 306, 0x9003, 0x9291
#: Metres; from below the Dead Sea to above what drones and mountains reach.
_ALTITUDES = (-1000.0, 20_000.0)


def gps_position(image: Image.Image) -> GpsPosition | None:
    """Latitude, longitude and altitude from the GPS table of an open image, or None."""
    try:
        table = dict(image.getexif().get_ifd(_GPS_IFD))
    except DAMAGE:
        return None
    latitude = _degrees(table.get(_LATITUDE), table.get(_LATITUDE_REF), "N", "S")
    longitude = _degrees(table.get(_LONGITUDE), table.get(_LONGITUDE_REF), "E", "W")
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    if abs(latitude) > 90 or abs(longitude) > 180 or _letter(table.get(_STATUS)) == "V":
        return None
    return GpsPosition(latitude, longitude, _altitude(table))


def taken_at_s(image: Image.Image) -> float | None:
    """When the photo was taken, seconds on the camera's clock (its zone is unknown), or None."""
    main, details = exif_tables(image)
    text = exif_text(details.get(_TAKEN)) or exif_text(main.get(_DATE_TIME))
    try:
        taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    fraction = exif_text(details.get(_TAKEN_FRACTION))
    return taken.timestamp() + (float(f"0.{fraction}") if fraction.isascii() and fraction.isdigit() else 0.0)


def _degrees(value: Any, reference: Any, positive: str, negative: str) -> float | None:
    """Degrees, minutes and seconds as signed degrees."""
    letter = _letter(reference)
    if letter not in (positive, negative) or not isinstance(value, tuple | list) or len(value) != 3:
        return None
    parts = [number for part in value if (number := _number(part)) is not None and number >= 0]
    if len(parts) != 3 or max(parts[1:]) > 60:
        return None
    total = parts[0] + parts[1] / 60 + parts[2] / 3600
    return total if letter == positive else -total


def _altitude(table: dict[int, Any]) -> float | None:
    height = _number(table.get(_ALTITUDE))
    if height is None:
        return None
    if table.get(_ALTITUDE_REF) in (1, b"\x01"):  # below sea level
        height = -height
    return height if _ALTITUDES[0] <= height <= _ALTITUDES[1] else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def _letter(value: Any) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return exif_text(text).upper()
