"""Pages in a headless Chromium for tests, which skip where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager

import imageio.v3 as iio
import numpy as np
import pytest

from tests.browser import BrowserUnavailable, Page


@contextmanager
def open_page(url: str, size: tuple[int, int] = (1280, 800)) -> Iterator[Page]:
    """The page at ``url`` in a window of ``size`` (width, height) pixels."""
    page = Page(url, size)
    try:
        page.__enter__()
    except BrowserUnavailable as reason:
        pytest.skip(str(reason))
    try:
        yield page
    finally:
        page.__exit__()


def seen(page: Page) -> np.ndarray:
    """What the window shows, int ``[height, width, 3]``."""
    return iio.imread(page.screenshot(), extension=".png")[..., :3].astype(int)
