"""Frames between supervisor and child: whole or not at all."""

import json
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from dreamforge_runner import wire


@pytest.fixture
def pair() -> Iterator[tuple[wire.Channel, wire.Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    channels = wire.Channel(ours), wire.Channel(theirs)
    yield *channels, ours
    for channel in channels:
        channel.close()


MESSAGES = [
    wire.Prepare("module:Class"),
    wire.Prepare("module:Class", {"id": "m"}),
    wire.StartJob("module:Class", {"id": "m"}, {"prompt": "line\nline\u2028\x00\ud83c"}),
    wire.RenderItems([3, 4], [2**32 - 1, 0]),
    wire.EndJob(),
    wire.Cancel(),
    wire.Shutdown(),
    wire.Prepared("t", "sdxl", "trainedAlgorithmicMedia", 1.5),
    wire.Warmed(12.5),
    wire.JobReady("sdxl", "trainedAlgorithmicMedia", 0.1, True),
    wire.JobReady("sdxl", "trainedAlgorithmicMedia", 0.1, True, "ab", 4),
    wire.Noticed("code", "message"),
    wire.StepDone(0, 5),
    wire.Denoised(0),
    wire.ItemRendered(0, 2, 1, b"\x00\xff\n{}A"),
    wire.ItemRendered(0, 2, 1, b"rgbrgb", "hopper@1"),
    wire.JobDone({"reserved_end_mib": 12.5}),
    wire.Failed("gpu_oom", "too little", None),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(pair, message: wire.Message):
    pair[0].send(message)
    assert pair[1].receive() == message


def test_large_pixels_and_small_messages_from_two_threads_do_not_mix(pair):
    pixels = wire.ItemRendered(0, 1024, 1024, bytes(1024 * 1024 * 3))
    threads = [
        threading.Thread(target=lambda: [pair[0].send(pixels) for _ in range(3)]),
        threading.Thread(target=lambda: [pair[0].send(wire.StepDone(0, n)) for n in range(200)]),
    ]
    for thread in threads:
        thread.start()
    got = [pair[1].receive() for _ in range(203)]
    for thread in threads:
        thread.join()
    assert got.count(pixels) == 3
    assert [message.step for message in got if isinstance(message, wire.StepDone)] == list(range(200))


def frame(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(payload)) + header + payload


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x00",
        struct.pack(">II", 2**31, 0),
        frame(b"not json"),
        frame(b"[]"),
        frame(json.dumps({"is": "Unknown"}).encode()),
        frame(json.dumps({"is": "StepDone", "item_index": 1}).encode()),
        frame(json.dumps({"is": "EndJob", "extra": 1}).encode()),
        frame(b'{"is": "ItemRendered"')[:-3],
    ],
)
def test_what_is_no_message_closes_the_channel(pair, raw: bytes):
    pair[2].sendall(raw)
    pair[2].shutdown(socket.SHUT_WR)
    with pytest.raises(wire.ChannelClosed):
        pair[1].receive()


def test_sending_to_nobody_is_told(pair):
    pair[1].close()
    with pytest.raises(wire.ChannelClosed):
        pair[0].send(wire.Cancel())
