"""Image files that are unusual, as cameras, scanners and editors write them."""

import io
import struct

from PIL import Image

from tests.helpers.datasets import encode, picture

MAKE, RESOLUTION_UNIT = 0x010F, 0x0128


def with_odd_exif(tag, orientation=6, width=32, height=24):
    """A photograph whose EXIF has an orientation, and a field of the wrong type (a fraction)."""
    orientation_field = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    odd_field = struct.pack("<HHII", tag, 5, 1, 38)
    fields = sorted([orientation_field, odd_field], key=lambda f: struct.unpack("<H", f[:2]))
    ifd = struct.pack("<H", 2) + b"".join(fields) + struct.pack("<I", 0)
    tiff = b"II*\0" + struct.pack("<I", 8) + ifd + struct.pack("<II", 72, 1)
    return encode(picture(0, width, height), "jpeg", exif=b"Exif\0\0" + tiff)


def animated(file_format, count=3, **options):
    """A file of several pictures, each of one gray, the first the darkest."""
    frames = [Image.new("RGB", (20, 20), (40 * i + 20,) * 3) for i in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def hidden_under_transparency(mode="RGBA", size=20):
    """Red pixels that are wholly transparent; in the right half, blue ones that are not."""
    image = Image.new("RGBA", (size, size), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (size // 2, 0, size, size))
    if mode == "P":
        image = Image.new("P", (size, size), 0)
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.paste(1, (size // 2, 0, size, size))
        return encode(image, "png", transparency=0)
    return encode(image, "png")
