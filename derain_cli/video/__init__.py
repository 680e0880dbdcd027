"""Films: every frame derained, everything else of the file kept.

A film is decoded, derained and encoded frame by frame; no frame is ever a file. What is finished is
kept in segments beside the target, so that a killed run goes on where it stopped. At the end the
segments, the sound, the subtitles and the chapters are put together into a file of the same kind,
which gets its name only when it is whole.

Files are read and written with PyAV (extra `video`), animations with Pillow. The rooms, imports
pointing down: `films`; `frames`, `joining`; `segments`; `encoding`; `reading`, `animations`;
`steadiness`, `hdr`; `kinds`. Nothing but `kinds` may be imported by a command that meets no film.
"""
