"""The tables of the catalog, format by format.

In: an open database and the format it has. Out: one of the newest format. A new file takes the same
steps as an old one, so that there is one shape however it came about. Written for SQLite 3.22: no
column is ever dropped.
"""

import re

# Shown to people, kept in files and in the journal: never renamed.
QUEUED = "queued"
WAITING = "waiting"  # seen and identified; it was too hot to embed it
SENT = "sent"  # handed to the radio in a pass
ACKED = "acked"  # the ground has it
HELD = "held"  # operations keep it out of the queue
MISSING = "missing"  # its file is gone from the inbox; queued again should it come back
DELETED = "deleted"  # the ground has it, and retention removed its file
DROPPED = "dropped"  # retention removed its file although the ground never acknowledged it
STATES = (QUEUED, WAITING, SENT, ACKED, HELD, MISSING, DELETED, DROPPED)
REFUSED = "refused"  # files, not images; counted beside the states

FORMAT = 3

# The images alone, because formats 1 and 2 had them otherwise.
IMAGES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,             -- order of arrival
    sha256 BLOB NOT NULL UNIQUE,
    path NOT NULL,                      -- TEXT, or BLOB where the name is not UTF-8
    bytes INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    captured_at TEXT NOT NULL,
    state TEXT NOT NULL,                -- one of STATES
    -- From here on NULL until the image is embedded, all of it.
    cluster INTEGER,                    -- of the codebook; without one, the provisional group
    distance REAL, second_distance REAL, ratio REAL, far INTEGER,
    novelty REAL, representative REAL,
    interest REAL,                      -- what orders an image within its cluster
    soft BLOB,                          -- soft membership, see pack_soft
    CHECK (state <> 'queued' OR soft IS NOT NULL));
CREATE INDEX images_by_interest ON images (state, cluster, interest DESC, id);
CREATE INDEX images_far ON images (ratio, id) WHERE far = 1 AND state = 'queued';
CREATE INDEX images_waiting ON images (id) WHERE state = 'waiting';
"""
OTHERS = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE groups (               -- while there is no codebook
    number INTEGER PRIMARY KEY,
    leader BLOB NOT NULL);              -- float32 [D]
CREATE TABLE embeddings (
    image INTEGER PRIMARY KEY,
    vector BLOB NOT NULL);              -- float16 [D]
CREATE TABLE files (path PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                    image INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX files_by_image ON files (image);
CREATE TABLE refusals (id INTEGER PRIMARY KEY, path NOT NULL UNIQUE, bytes INTEGER NOT NULL,
                       mtime_ns INTEGER NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
                       refused_at TEXT NOT NULL);
CREATE TABLE attempts (path PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
                       points INTEGER NOT NULL) WITHOUT ROWID;
"""
# The last part of the path; an index of this very expression finds an image by the name of its file.
NAME = "replace(path, rtrim(path, replace(path, '/', '')), '')"
# What operations do, and what ranking needs of it.
OPERATIONS = """
ALTER TABLE images ADD COLUMN pass INTEGER;            -- the last one it was sent in
ALTER TABLE images ADD COLUMN pass_place INTEGER;      -- its place in it, from 1
ALTER TABLE images ADD COLUMN preview_pass INTEGER;    -- the one its preview was sent in
ALTER TABLE images ADD COLUMN pinned INTEGER;          -- order of pinning; NULL: it is not
ALTER TABLE images ADD COLUMN measures BLOB;           -- of its pixels, see quality.pack
ALTER TABLE images ADD COLUMN quality REAL NOT NULL DEFAULT 1;    -- what the policy makes of them
ALTER TABLE images ADD COLUMN signature REAL NOT NULL DEFAULT 0;  -- likeness to a target
ALTER TABLE images ADD COLUMN twin INTEGER NOT NULL DEFAULT 0;    -- first of its near-duplicates
ALTER TABLE images ADD COLUMN reach REAL NOT NULL DEFAULT 0;      -- what is near it, see Assessment
ALTER TABLE images ADD COLUMN sketch BLOB;             -- see sketches.pack
CREATE INDEX images_queued ON images (id) WHERE state = 'queued';
CREATE INDEX images_unpreviewed ON images (id) WHERE state = 'queued' AND preview_pass IS NULL;
CREATE INDEX images_by_name ON images (""" + NAME + """);
CREATE INDEX images_by_pass ON images (pass, pass_place) WHERE pass IS NOT NULL;
CREATE INDEX images_by_preview_pass ON images (preview_pass) WHERE preview_pass IS NOT NULL;
CREATE INDEX images_pinned ON images (pinned) WHERE pinned IS NOT NULL;
CREATE INDEX images_by_twin ON images (twin) WHERE twin > 0;
CREATE INDEX refusals_quarantined ON refusals (id) WHERE code = 'quarantined';
CREATE TABLE previews (image INTEGER PRIMARY KEY, format TEXT NOT NULL, psnr_db REAL NOT NULL,
                       content BLOB NOT NULL);
CREATE TABLE passes (
    number INTEGER PRIMARY KEY, made_at TEXT NOT NULL, origin TEXT NOT NULL,
    budget_bytes INTEGER NOT NULL,
    images INTEGER NOT NULL, bytes INTEGER NOT NULL,
    previews INTEGER NOT NULL, preview_bytes INTEGER NOT NULL,
    last_image INTEGER NOT NULL);       -- the newest image then known: age is counted in passes
CREATE TABLE remembered (               -- what the journal says of contents, also of lost ones
    sha256 BLOB PRIMARY KEY, state TEXT NOT NULL, pass INTEGER NOT NULL,
    pinned INTEGER) WITHOUT ROWID;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, origin TEXT NOT NULL,
    order_id TEXT UNIQUE,               -- NULL: not an order, or one that was refused
    action TEXT NOT NULL, target TEXT NOT NULL, result TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE amendments (               -- of the policy, by orders
    kind TEXT NOT NULL, key TEXT NOT NULL, value, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE outbox (                   -- the links that were made, so that a gone one was sent
    name TEXT PRIMARY KEY, image INTEGER NOT NULL, made INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE tallies (                  -- kept by the triggers: counting a million takes long
    state TEXT PRIMARY KEY, images INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
"""
TRIGGERS = (
    "CREATE TRIGGER tally_insert AFTER INSERT ON images BEGIN "
    "UPDATE tallies SET images = images + 1, bytes = bytes + NEW.bytes WHERE state = NEW.state; "
    "END",
    "CREATE TRIGGER tally_delete AFTER DELETE ON images BEGIN "
    "UPDATE tallies SET images = images - 1, bytes = bytes - OLD.bytes WHERE state = OLD.state; "
    "END",
    "CREATE TRIGGER tally_update AFTER UPDATE OF state ON images WHEN NEW.state <> OLD.state BEGIN "
    "UPDATE tallies SET images = images - 1, bytes = bytes - OLD.bytes WHERE state = OLD.state; "
    "UPDATE tallies SET images = images + 1, bytes = bytes + NEW.bytes WHERE state = NEW.state; "
    "END",
    "CREATE TRIGGER tally_refused AFTER INSERT ON refusals BEGIN "
    "UPDATE tallies SET images = images + 1, bytes = bytes + NEW.bytes WHERE state = 'refused'; "
    "END",
    "CREATE TRIGGER tally_unrefused AFTER DELETE ON refusals BEGIN "
    "UPDATE tallies SET images = images - 1, bytes = bytes - OLD.bytes WHERE state = 'refused'; "
    "END",
)


def upgrade(database, version: int) -> None:
    """Bring a database of format `version` (0: an empty file) to FORMAT, within a transaction."""
    if version == 0:
        _run(database, IMAGES + OTHERS)
    if version == 1:
        _images_may_wait(database)
    if version < 3:
        _run(database, OPERATIONS)
        for trigger in TRIGGERS:
            database.execute(trigger)
        count(database)
    database.execute("PRAGMA user_version = %d" % FORMAT)


def count(database) -> None:
    """Fill the tallies from the images and refusals that there are."""
    database.execute("DELETE FROM tallies")
    database.executemany("INSERT INTO tallies VALUES (?, 0, 0)",
                         [(state,) for state in STATES + (REFUSED,)])
    counted = database.execute(
        "SELECT state, COUNT(*), SUM(bytes) FROM images GROUP BY state UNION ALL "
        "SELECT 'refused', COUNT(*), COALESCE(SUM(bytes), 0) FROM refusals").fetchall()
    database.executemany("UPDATE tallies SET images = ?2, bytes = ?3 WHERE state = ?1", counted)


def _images_may_wait(database) -> None:
    """Format 1 to 2: let an image be without its place; embeddings are not touched."""
    database.execute("ALTER TABLE images RENAME TO images_of_format_1")
    for index in ("images_by_interest", "images_far"):
        database.execute("DROP INDEX " + index)
    _run(database, IMAGES)
    database.execute("INSERT INTO images SELECT * FROM images_of_format_1")
    database.execute("DROP TABLE images_of_format_1")


def _run(database, statements: str) -> None:
    # executescript() would commit before it begins.
    for statement in filter(str.strip, re.sub("--.*", "", statements).split(";")):
        database.execute(statement)
