"""The page in the browser and the web service behind it: `derain serve`.

Needs the extra `serve`. Nothing that is sent is written to a disk or kept after its answer.
"""
