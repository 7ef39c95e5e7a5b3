import errno
import io
import resource
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from data.errors import UserError, VideoError
from data.video import VideoSettings, decode_mp4, encode_mp4, web_copy
from tests.video_header import probe


def difference(first, second):
    return np.abs(first.astype(int) - second.astype(int))


def test_masters_are_near_lossless(frames):
    decoded, fps = decode_mp4(encode_mp4(frames, 8))
    assert fps == 8
    assert decoded.shape == frames.shape
    assert decoded.dtype == np.uint8
    assert difference(decoded, frames).max() <= 8
    assert difference(decoded, frames).mean() <= 1.5


def test_encoding_is_a_function_of_frames_and_settings(frames):
    first = encode_mp4(frames, 8)
    assert encode_mp4(frames.copy(), 8) == first
    assert encode_mp4(frames, 8, VideoSettings()) == first
    assert encode_mp4(frames, 8, VideoSettings(crf=20)) != first
    assert encode_mp4(np.asfortranarray(frames), 8) == first


def test_clips_encoded_at_once_have_the_bytes_that_they_have_alone():
    """As the generate stage writes them: x264's faster sums gave other bytes, now and then, on some processors."""
    draw = np.random.default_rng(0)
    x, y, t = (
        np.arange(64)[None, None, :, None],
        np.arange(64)[None, :, None, None],
        np.arange(17)[:, None, None, None],
    )
    clips = [
        np.clip(
            128 + 60 * np.sin((x + t) / (7 + i) + y / 9) + draw.normal(0, 6, (17, 64, 64, 3)), 0, 255
        ).astype(np.uint8)
        for i in range(8)
    ]
    how = VideoSettings(crf=10, pix_fmt="yuv420p")
    alone = [encode_mp4(clip, 8, how) for clip in clips]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda place: encode_mp4(clips[place % 8], 8, how), range(160)))
    assert together == alone * 20


@settings(max_examples=15, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.integers(16, 40), st.integers(16, 40), st.just(3))),
    st.sampled_from([1, 8, 12.5, 23.976, 60]),
)
def test_any_length_and_size_comes_back(frames, fps):
    decoded, rate = decode_mp4(encode_mp4(frames, fps))
    assert decoded.shape == frames.shape
    assert rate == pytest.approx(fps, rel=1e-3)


def test_a_path_and_its_bytes_decode_alike(frames, tmp_path):
    video = encode_mp4(frames, 8)
    path = tmp_path / "clip.mp4"
    path.write_bytes(video)
    for source in (path, str(path)):
        assert np.array_equal(decode_mp4(source)[0], decode_mp4(video)[0])
    assert probe(path) == probe(video) == ("h264", "yuv444p", 9, 32, 32, 8.0)


def test_420_needs_even_sizes_and_says_so(frames):
    settings_420 = VideoSettings(pix_fmt="yuv420p")
    assert decode_mp4(encode_mp4(frames, 8, settings_420))[0].shape == frames.shape
    with pytest.raises(UserError, match="a clip is 31x32: use yuv444p"):
        encode_mp4(frames[:, :, :31], 8, settings_420)


@pytest.mark.parametrize(
    "wrong", [{"codec": "mpeg4"}, {"crf": 52}, {"crf": -1}, {"pix_fmt": "rgb24"}, {"preset": "warp"}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        VideoSettings(**wrong)
    assert VideoSettings().describe() == "libx264 crf=4 yuv444p veryfast"


@pytest.mark.parametrize("shape", [(0, 32, 32, 3), (2, 0, 32, 3), (2, 32, 32), (2, 32, 32, 4)])
def test_wrong_frames_are_refused(shape):
    for write in (encode_mp4, web_copy):
        with pytest.raises(ValueError, match="frames must be uint8"):
            write(np.zeros(shape, np.uint8), 8)
        with pytest.raises(ValueError, match="frames must be uint8"):
            write(np.zeros((2, 32, 32, 3), np.float32), 8)
        with pytest.raises(ValueError, match="fps is"):
            write(np.zeros((2, 32, 32, 3), np.uint8), 0)


def test_broken_files_are_an_error_of_that_clip(frames, tmp_path):
    video = encode_mp4(frames, 8)
    broken = {
        "empty.mp4": b"", "text.mp4": b"not a video " * 50, "half.mp4": video[: len(video) // 2],
        "cut.mp4": video[:-400], "zeros.mp4": bytes(len(video)),
    }  # fmt: skip
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=name):
            decode_mp4(tmp_path / name)
    with pytest.raises(VideoError, match=r"missing\.mp4 cannot be decoded: No such file"):
        decode_mp4(tmp_path / "missing.mp4")


def claims(video: bytes, box: bytes, offset: int, *numbers: int) -> bytes:
    """The video with other numbers in a box of its header, 32 bits each."""
    place = video.index(box) + offset
    said = struct.pack(f">{len(numbers)}I", *numbers)
    return video[:place] + said + video[place + len(said) :]


def test_what_a_header_claims_costs_nothing(frames):
    video = encode_mp4(frames, 8)
    many = 1 << 26
    counted = claims(video, b"stsz", 8, 1, many)  # samples of one size need no table
    for wrong, said in (
        (claims(counted, b"stsc", 16, many), "counts more than the file has bytes"),
        (claims(video, b"stsz", 12, 0xFFFFFFFF), "counts more than the file has bytes"),
        (claims(video, b"stts", 8, 0xFFFFFFFF), "counts more than the file has bytes"),
        (claims(video, b"stts", 12, 0x7FFFFFFF), "more than can be read"),
    ):
        before = peak_mb()
        with pytest.raises(VideoError, match=said):
            decode_mp4(wrong)
        assert peak_mb() - before < 100


def test_pictures_larger_than_a_clip_may_have_are_refused():
    large = encode_mp4(np.zeros((1, 4112, 4112, 3), np.uint8), 8, VideoSettings(preset="ultrafast", crf=51))
    with pytest.raises(VideoError, match="4112x4112 are more than can be read"):
        decode_mp4(large)


@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "mp4"), ("mjpeg", "avi")])
def test_other_codecs_and_containers_are_not_tried(frames, codec, container):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as written:
        stream = written.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            written.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        written.mux(stream.encode(None))
    with pytest.raises(VideoError, match="cannot be decoded"):
        decode_mp4(buffer.getvalue())


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_video_that_lost_its_end_is_truncated_not_shorter(frames):
    # A copy for browsers has its index in front, so that what is left of it can be opened.
    video = web_copy(frames, 8, scale=8)
    with pytest.raises(VideoError, match=r"truncated|cannot be decoded"):
        decode_mp4(video[: len(video) * 2 // 3])


def test_no_flipped_byte_crashes_the_decoder(frames):
    video = encode_mp4(frames, 8)
    whole, _ = decode_mp4(video)
    refused = 0
    for position in range(0, len(video), 37):
        harmed = bytearray(video)
        harmed[position] ^= 0xFF
        try:
            decoded, _ = decode_mp4(bytes(harmed))
        except VideoError:
            refused += 1
        else:
            assert decoded.shape == whole.shape
    assert refused > 0


def test_web_copies_play_everywhere_and_keep_the_pixels(frames):
    copy = web_copy(frames, 8, scale=3)
    assert probe(copy) == ("h264", "yuv420p", 9, 96, 96, 8.0)
    assert copy.index(b"moov") < copy.index(b"mdat")
    decoded, _ = decode_mp4(copy)
    centres = decoded[:, 1::3, 1::3]
    assert difference(centres, frames).mean() < 4
    assert web_copy(frames, 8, scale=3) == copy
    # avcC holds the profile: 100 is High.
    assert copy[copy.index(b"avcC") + 5] == 100


def test_odd_sizes_become_even_in_web_copies(frames):
    info = probe(web_copy(frames[:, :31, :29], 8))
    assert (info.width, info.height) == (30, 32)
    with pytest.raises(ValueError, match="scale is 0"):
        web_copy(frames, 8, scale=0)


@pytest.mark.parametrize("number", [errno.ENFILE, errno.EMFILE, errno.EAGAIN])
def test_a_decoder_without_files_or_threads_says_nothing_of_the_video(number, frames, monkeypatch):
    import av.error

    video = encode_mp4(frames, 8)

    def opened(*_, **__):
        av.error.err_check(-number)

    with monkeypatch.context() as ill:
        ill.setattr("av.open", opened)
        with pytest.raises((OSError, MemoryError)) as raised:
            decode_mp4(video)
    assert raised.value.errno == number
    with pytest.raises(VideoError):
        decode_mp4(video[: len(video) // 2])


def test_a_decoder_without_memory_says_nothing_of_the_video(frames, monkeypatch):
    """Where the machine has none, or had none for a moment; not where a file asks for more than any may need."""
    import av.error

    video = encode_mp4(frames, 8)
    opened, fails = av.open, [True]

    def failing(*args, **named):
        if fails and fails.pop():
            av.error.err_check(-errno.ENOMEM)
        return opened(*args, **named)

    monkeypatch.setattr("av.open", failing)
    assert decode_mp4(video)[0].shape == frames.shape
    assert fails == []
    fails += [True, True]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), before[1]))
    try:
        with pytest.raises(MemoryError):
            decode_mp4(video)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert fails == [True]


def test_a_file_that_claims_more_memory_than_it_can_need_is_no_fault_of_the_machine():
    found = sorted((Path(__file__).parents[1] / "fuzz/corpora/mp4").glob("found-memory-*"))
    assert len(found) >= 3
    for file in found:
        with pytest.raises(VideoError, match="claims more memory than a file of its size can need"):
            decode_mp4(file)
