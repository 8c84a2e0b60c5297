"""Draws landscape pictures from a seed; the same seed always gives the same bytes."""

import hashlib
import io
import math
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

# Landscape, square, portrait: about 0.25 megapixels, drawn and compressed in 15 to 30 ms.
SIZES = ((640, 448), (512, 512), (448, 640))
GRAIN_LEVELS = 12
GLOW_SCALE = 4


class PictureFormat(StrEnum):
    """The format of the bytes, independent of the file extension in the URL."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"

    @property
    def content_type(self) -> str:
        """The media type of the bytes."""
        return f"image/{self.value.lower()}"


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture."""

    content: bytes
    format: PictureFormat
    width: int
    height: int
    trailing_bytes: int = 0  # number of bytes of `content` after the end of the picture

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, in hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class _Palette:
    sky_top: Colour
    sky_bottom: Colour
    light: Colour
    far: Colour
    near: Colour
    stars: bool = False


# Originals are drawn in daylight, results with one of the other palettes.
_DAY = _Palette((120, 170, 220), (226, 236, 240), (255, 252, 232), (168, 192, 200), (72, 110, 92))
_PALETTES = (
    _Palette((46, 36, 84), (255, 158, 104), (255, 226, 158), (196, 112, 116), (44, 28, 58)),  # sunset
    _Palette((10, 16, 44), (58, 78, 128), (240, 240, 220), (44, 58, 100), (8, 12, 28), stars=True),  # night
    _Palette((92, 130, 170), (252, 214, 200), (255, 244, 224), (190, 170, 190), (62, 66, 96)),  # dawn
    _Palette((16, 72, 92), (168, 226, 206), (250, 255, 226), (84, 160, 156), (10, 52, 62)),  # lagoon
    _Palette((84, 24, 60), (250, 188, 120), (255, 240, 190), (206, 104, 90), (70, 18, 44)),  # desert
    _Palette((26, 20, 60), (92, 200, 170), (220, 255, 236), (54, 98, 120), (14, 18, 40), stars=True),  # aurora
)


@lru_cache(maxsize=256)
def draw_picture(scene: str, variant: str, picture_format: PictureFormat) -> Picture:
    """Draws the landscape of the seed `scene`. The variant "day" has its own palette; others select one of six."""
    layout = random.Random(scene)
    width, height = layout.choice(SIZES)
    palette = _DAY if variant == "day" else random.Random(f"{scene}/{variant}").choice(_PALETTES)
    canvas = _draw_sky(width, height, palette, layout)
    (_draw_hills if layout.random() < 0.6 else _draw_sea)(canvas, palette, layout)
    return Picture(_encode(_add_grain(canvas, scene), picture_format), picture_format, width, height)


@lru_cache(maxsize=64)
def draw_phone_photo(scene: str, variant: str) -> Picture:
    """Draws the same landscape as a multi-picture JPEG: the photo, followed by a smaller JPEG, the gain map."""
    photo = draw_picture(scene, variant, PictureFormat.JPEG)
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(photo.content)) as canvas:
        gain_map = canvas.convert("L").resize((canvas.width // 4, canvas.height // 4))
        canvas.save(buffer, "MPO", quality=92, save_all=True, append_images=[gain_map])
    content = buffer.getvalue()
    # The photo's end marker. Inside the picture's data, FF is always followed by 00 or a restart marker.
    end = content.index(b"\xff\xd9\xff\xd8") + 2
    return replace(photo, content=content, trailing_bytes=len(content) - end)


def _draw_sky(width: int, height: int, palette: _Palette, layout: random.Random) -> Image.Image:
    column = Image.new("RGB", (1, height))
    for row in range(height):
        column.putpixel((0, row), _mix(palette.sky_top, palette.sky_bottom, min(1.0, row / (height * 0.7))))
    canvas = column.resize((width, height))
    x, y = layout.uniform(0.2, 0.8) * width, layout.uniform(0.18, 0.5) * height
    radius = layout.uniform(0.05, 0.1) * min(width, height)
    if palette.stars:
        draw, stars = ImageDraw.Draw(canvas), random.Random(x)  # separate: stars do not change the rest
        for _ in range(140):
            star = _circle(stars.uniform(0, width), stars.uniform(0, height * 0.6), stars.choice((0.5, 0.5, 1.0)))
            draw.ellipse(star, fill=_mix(palette.sky_top, (255, 255, 255), stars.uniform(0.4, 1)))
    # The glow has no sharp edges: a small image of it, enlarged, looks the same and takes less time.
    glow = Image.new("RGB", (width // GLOW_SCALE, height // GLOW_SCALE))
    halo = ImageDraw.Draw(glow)
    for step in (5, 3.4, 2.2, 1.4):
        circle = _circle(x / GLOW_SCALE, y / GLOW_SCALE, radius * step / GLOW_SCALE)
        halo.ellipse(circle, fill=_mix((0, 0, 0), palette.light, 0.45 / step))
    glow = glow.filter(ImageFilter.GaussianBlur(radius * 0.9 / GLOW_SCALE)).resize((width, height))
    canvas = ImageChops.screen(canvas, glow)
    ImageDraw.Draw(canvas).ellipse(_circle(x, y, radius), fill=palette.light)
    return canvas.filter(ImageFilter.BoxBlur(0.6))


def _draw_hills(canvas: Image.Image, palette: _Palette, layout: random.Random) -> None:
    """Draws ridges from far (pale) to near."""
    draw = ImageDraw.Draw(canvas)
    ridges, height = layout.randint(4, 6), canvas.height * 0.11
    for ridge in range(ridges):
        nearness = ridge / (ridges - 1)
        base = canvas.height * (0.48 + 0.38 * nearness)
        waves = [
            (
                layout.uniform(0.5, 1.4) * 2**octave,
                layout.uniform(0, math.tau),
                height / 2 ** (octave * 1.1),
            )
            for octave in range(6)
        ]
        outline = [
            (x, base - sum(size * math.sin(rate * math.tau * x / canvas.width + phase) for rate, phase, size in waves))
            for x in range(-2, canvas.width + 4, 2)
        ]
        draw.polygon(
            [(-2, canvas.height), *outline, (canvas.width + 4, canvas.height)],
            fill=_mix(palette.far, palette.near, nearness),
        )


def _draw_sea(canvas: Image.Image, palette: _Palette, layout: random.Random) -> None:
    """Draws the sea as the mirrored sky with waves, and a small sail."""
    horizon = int(canvas.height * layout.uniform(0.58, 0.68))
    depth = canvas.height - horizon
    mirror = canvas.crop((0, horizon - depth, canvas.width, horizon)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    canvas.paste(Image.blend(mirror, Image.new("RGB", mirror.size, palette.far), 0.35), (0, horizon))
    draw = ImageDraw.Draw(canvas)
    for _ in range(260):
        nearness = layout.random() ** 1.5
        y = horizon + nearness * depth
        x, length = layout.uniform(-40, canvas.width), layout.uniform(10, 30) * (0.5 + 3 * nearness)
        tint = _mix(palette.far, palette.light if layout.random() < 0.35 else palette.near, layout.uniform(0.2, 0.6))
        draw.line([(x, y), (x + length, y)], fill=tint, width=1 + int(2 * nearness))
    x, size = layout.uniform(0.2, 0.8) * canvas.width, depth * layout.uniform(0.25, 0.4)
    foot = horizon + depth * 0.12
    draw.polygon([(x, foot), (x, foot - size), (x + size * 0.5, foot)], fill=palette.light)
    draw.polygon([(x - 2, foot), (x - 2, foot - size * 0.8), (x - size * 0.35, foot)], fill=palette.near)
    hull = [(x - size * 0.45, foot + 2), (x + size * 0.6, foot + 2), (x + size * 0.4, foot + size * 0.16)]
    draw.polygon([*hull, (x - size * 0.3, foot + size * 0.16)], fill=palette.near)


def _add_grain(canvas: Image.Image, scene: str) -> Image.Image:
    """Adds noise: without it, the files would be much smaller than real images."""
    noise = Image.frombytes("L", canvas.size, random.Random(scene).randbytes(canvas.width * canvas.height))
    grain = noise.point([level * GRAIN_LEVELS // 256 for level in range(256)])
    return ImageChops.add(canvas, Image.merge("RGB", (grain, grain, grain)), offset=-GRAIN_LEVELS // 2)


def _encode(canvas: Image.Image, picture_format: PictureFormat) -> bytes:
    buffer = io.BytesIO()
    # The fastest compression: a better one takes three to five times as long, for files of almost the same size.
    canvas.save(buffer, picture_format.value, quality=92, compress_level=1, method=0)
    return buffer.getvalue()


def _mix(one: Colour, other: Colour, share: float) -> Colour:
    """Mixes two colours: `share` (0 to 1) of the second, the rest of the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _circle(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius
