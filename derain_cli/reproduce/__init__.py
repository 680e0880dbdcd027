"""The papers' tables, one command each: `derain reproduce TABLE`.

A paper is one file of tables as data (`tables` says of what they are made), `catalogue` lists them
all, `plan` turns a table into runs, `runner` trains and scores what is missing, `results` puts ours
beside the paper's, `pages` writes that down.
"""
