"""OpenCV, the decoder of 16-bit samples where Pillow makes 8 bits of them."""

import numpy as np


def decode_with_opencv(data: bytes | bytearray) -> np.ndarray:
    """16-bit samples `(height, width, 1, 3 or 4)` in OpenCV's order BGRA.

    Raises:
        ValueError: OpenCV cannot decode them.
    """
    import cv2  # noqa: PLC0415 (most pictures need no OpenCV)

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None or samples.dtype != np.uint16:
        raise ValueError("its pixels cannot be decoded")
    decoded: np.ndarray = samples if samples.ndim == 3 else samples[..., None]
    return decoded
