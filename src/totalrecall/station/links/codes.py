"""Serial numbers from DataMatrix and QR codes in the picture."""

import cv2

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import decode_image

__all__ = ["read_serial"]

_LONGEST = 200  # letters of a serial number


def read_serial(picture: bytes) -> str | None:
    """Return the text of the one code in a picture; None where there is none, or several that differ.

    A wrong serial number is worse than none: of two different codes nobody knows which is the part's. Letters that
    cannot be printed, such as the separators of GS1, become spaces.
    """
    import zxingcpp

    try:
        pixels = decode_image(picture, "picture")
    except PictureError:  # it is told where the picture is judged
        return None
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    wanted = zxingcpp.barcode_formats_from_str("DataMatrix,QRCode")
    texts = {_clean(code.text) for code in zxingcpp.read_barcodes(grey, formats=wanted) if code.valid}
    texts.discard("")
    text = texts.pop() if len(texts) == 1 else ""
    return text if 0 < len(text) <= _LONGEST else None


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
