"""What all tests share: examples of Hypothesis may take as long as a busy machine needs."""

from hypothesis import settings

settings.register_profile("redline", deadline=None)
settings.load_profile("redline")
