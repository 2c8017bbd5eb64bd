"""CRC-32C (Castagnoli), the checksum of TensorFlow's tables and tensors, over whole arrays at once.

A byte at a time Python takes a minute for the weights of one network. Here the data is cut into lanes of
equal length that advance together, a table look-up per two bytes and all lanes; lanes are then joined in
pairs, as the register after ``A + B`` is that of ``A`` moved through ``len(B)`` zero bytes, xor that of
``B``. Moving through zeros is linear: a matrix over GF(2), squared for twice as many.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import UInt32

Array = np.ndarray

_POLYNOMIAL = 0x82F63B78  # bits reversed
_MASK_DELTA = 0xA282EAD8
_MOST_LANES = 1 << 14


def crc32c(data: bytes | memoryview | Array) -> int:
    """The checksum of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    values = np.frombuffer(data, np.uint8)
    lanes = 1
    while lanes < _MOST_LANES and values.size >= 128 * lanes:
        lanes *= 2
    width = values.size // lanes // 2 * 2
    # The register starts as ones: that belongs to the first lane alone, as if the others went on from zero.
    registers = np.zeros(lanes, np.uint32)
    registers[0] = 0xFFFFFFFF
    pairs = values[: lanes * width].view("<u2").reshape(lanes, width // 2)
    for column in np.ascontiguousarray(pairs.T):
        registers = np.take(_pairs(), registers.astype(np.uint16) ^ column) ^ (registers >> np.uint32(16))
    move = _zero_bytes(width)
    while len(registers) > 1:
        registers = _apply(move, registers[0::2]) ^ registers[1::2]
        move = _apply(move, move)
    register = int(registers[0])
    table = _table()
    for byte in values[lanes * width :].tolist():
        register = int(table[(register ^ byte) & 0xFF]) ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """How TensorFlow and LevelDB store a checksum beside its data."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> UInt32[Array, "256"]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@lru_cache(maxsize=1)
def _pairs() -> UInt32[Array, "65536"]:
    """What two bytes make of a register that was zero."""
    table = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        table = _table()[table & 0xFF] ^ (table >> np.uint32(8))
    return table


@lru_cache(maxsize=256)
def _zero_bytes(count: int) -> UInt32[Array, "4 256"]:
    """What ``count`` zero bytes make of a register, for each value of each of its four bytes."""
    bytewise = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    one = _table()[bytewise & 0xFF] ^ (bytewise >> 8)
    result = bytewise
    while count:
        if count & 1:
            result = _apply(one, result)
        one = _apply(one, one)
        count >>= 1
    return result


def _apply(move: UInt32[Array, "4 256"], registers: UInt32[Array, "*n"]) -> UInt32[Array, "*n"]:
    out = move[0][registers & 0xFF]
    for byte in (1, 2, 3):
        out ^= move[byte][registers >> np.uint32(8 * byte) & 0xFF]
    return out
