"""The catalog's tables, as SQL.

The catalog is an index over the folders: every fact in it can be read from them again, so it may be deleted at any
time. Times are microseconds since 1970 UTC, JSON is text. SQLite keeps NaN as NULL and -0.0 as 0, therefore
`last_kind`: 0 = the number in `last`, 1 = NaN, 2 = -0.0.

Beyond what its name says: `run.seen` is the folder's modification time when `run.json` was read, `run.settled` that of
the journal folder when nothing in it was left to fold, `run.stale` is 1 while the folder's Parquet files are not
registered, `run.facts` holds what `run.json` says and no column does, `run.late` the changes that came by the journal
and are not in `run.json` yet. `segment.crc` is the CRC-32 of the whole file, `position.declared` the offsets of the
records that declare schemas and axes in the segment that is being read, `layer_part.layers` a deflated list of names,
`layer_part.grid` as `layer_overview.py` draws it. The columns of `tag` stand in the order of its
key: in any other, SQLite 3.40's `quick_check` reports NULLs that are not there.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE project(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,
  settings TEXT NOT NULL DEFAULT '{}');

CREATE TABLE run(
  id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, folder TEXT NOT NULL UNIQUE,
  project INTEGER NOT NULL REFERENCES project(id), name TEXT NOT NULL,
  status TEXT NOT NULL, reason TEXT,
  started INTEGER NOT NULL, ended INTEGER, heartbeat INTEGER,
  steps INTEGER NOT NULL DEFAULT 0, checkpoints INTEGER NOT NULL DEFAULT 0, points INTEGER NOT NULL DEFAULT 0,
  "group" TEXT, job_type TEXT, notes TEXT,
  parent TEXT, fork_step INTEGER, attempt INTEGER NOT NULL DEFAULT 1,
  config TEXT NOT NULL DEFAULT '{}', config_hash TEXT, sibling_hash TEXT,
  environment TEXT, git_commit TEXT, git_dirty INTEGER, host TEXT, "user" TEXT, world_size INTEGER,
  bytes INTEGER NOT NULL DEFAULT 0, cost TEXT, lost INTEGER NOT NULL DEFAULT 0,
  archived INTEGER, expires INTEGER, trashed INTEGER,
  revision INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,
  facts TEXT NOT NULL DEFAULT '{}', late TEXT NOT NULL DEFAULT '[]',
  seen INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0, stale INTEGER NOT NULL DEFAULT 0);
CREATE INDEX run_page ON run(project, started DESC);
CREATE INDEX run_started ON run(started DESC);
CREATE INDEX run_status ON run(status, heartbeat);
CREATE INDEX run_name ON run(name);
CREATE INDEX run_sibling ON run(sibling_hash);
CREATE INDEX run_seen ON run(folder, seen);
CREATE TRIGGER project_unused AFTER DELETE ON run WHEN NOT EXISTS (SELECT 1 FROM run WHERE project = old.project)
  BEGIN DELETE FROM project WHERE id = old.project; END;

CREATE TABLE param(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  key TEXT NOT NULL, num REAL, text TEXT, PRIMARY KEY(run, key)) WITHOUT ROWID;
CREATE INDEX param_num ON param(key, num, run);
CREATE INDEX param_text ON param(key, text, run);
CREATE TABLE tag(tag TEXT NOT NULL, run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  PRIMARY KEY(tag, run)) WITHOUT ROWID;
CREATE INDEX tag_run ON tag(run);

CREATE TABLE metric(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, tags TEXT, unit TEXT, goal TEXT);
CREATE TABLE series(
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  metric INTEGER NOT NULL REFERENCES metric(id), rank INTEGER NOT NULL DEFAULT 0,
  n INTEGER NOT NULL, first_step INTEGER, last_step INTEGER,
  last REAL, last_kind INTEGER NOT NULL DEFAULT 0, last_time INTEGER,
  min REAL, max REAL, sum REAL, nan INTEGER NOT NULL DEFAULT 0, inf INTEGER NOT NULL DEFAULT 0,
  UNIQUE(run, metric, rank));
CREATE INDEX series_top ON series(metric, rank, last);
CREATE INDEX series_best ON series(metric, rank, min);
CREATE TRIGGER metric_unused AFTER DELETE ON series WHEN NOT EXISTS (SELECT 1 FROM series WHERE metric = old.metric)
  BEGIN DELETE FROM metric WHERE id = old.metric; END;
CREATE TABLE overview(series INTEGER PRIMARY KEY REFERENCES series(id) ON DELETE CASCADE,
  form INTEGER NOT NULL, base INTEGER NOT NULL, shift INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE text_series(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  metric TEXT NOT NULL, rank INTEGER NOT NULL DEFAULT 0, n INTEGER NOT NULL,
  first_step INTEGER, last_step INTEGER, last_time INTEGER, PRIMARY KEY(run, metric, rank)) WITHOUT ROWID;

CREATE TABLE segment(id INTEGER PRIMARY KEY, family TEXT NOT NULL, path TEXT NOT NULL UNIQUE, level INTEGER NOT NULL,
  order0 INTEGER NOT NULL, order1 INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL, crc INTEGER NOT NULL,
  created INTEGER NOT NULL, dead INTEGER);
CREATE INDEX segment_dead ON segment(dead) WHERE dead IS NOT NULL;
CREATE TABLE segment_run(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  segment INTEGER NOT NULL REFERENCES segment(id) ON DELETE CASCADE,
  step0 INTEGER, step1 INTEGER, time0 INTEGER, time1 INTEGER, rows INTEGER NOT NULL,
  PRIMARY KEY(run, segment)) WITHOUT ROWID;
CREATE INDEX segment_run_segment ON segment_run(segment);
CREATE TRIGGER segment_unused AFTER DELETE ON segment_run
  WHEN NOT EXISTS (SELECT 1 FROM segment_run WHERE segment = old.segment)
  BEGIN DELETE FROM segment WHERE id = old.segment AND dead IS NULL; END;
CREATE TABLE writer(id TEXT PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, host TEXT,
  pid INTEGER, boot TEXT, rank INTEGER, role TEXT, opened INTEGER, closed INTEGER);
CREATE INDEX writer_run ON writer(run);
CREATE TABLE position(writer TEXT NOT NULL REFERENCES writer(id) ON DELETE CASCADE, family TEXT NOT NULL,
  segment INTEGER NOT NULL, "offset" INTEGER NOT NULL, declared BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY(writer, family)) WITHOUT ROWID;
CREATE TABLE tombstone(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "order" INTEGER NOT NULL,
  step INTEGER NOT NULL, pattern TEXT NOT NULL);
CREATE INDEX tombstone_run ON tombstone(run);

CREATE TABLE checkpoint(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, step INTEGER NOT NULL,
  time INTEGER NOT NULL, metrics TEXT NOT NULL, system TEXT, samples TEXT, layers INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(run, step)) WITHOUT ROWID;
CREATE TABLE axis(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, digest TEXT NOT NULL, names TEXT NOT NULL,
  PRIMARY KEY(run, digest)) WITHOUT ROWID;
CREATE TABLE layer_stat(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, axis TEXT NOT NULL,
  stat TEXT NOT NULL, n INTEGER, min REAL, min_layer TEXT, min_step INTEGER,
  max REAL, max_layer TEXT, max_step INTEGER, PRIMARY KEY(run, axis, stat)) WITHOUT ROWID;
CREATE TABLE finding(id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE,
  run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  rank INTEGER, step INTEGER NOT NULL, last_step INTEGER, kind TEXT NOT NULL, severity TEXT NOT NULL,
  details TEXT NOT NULL, causes TEXT, capsule TEXT, source TEXT, detected INTEGER NOT NULL);
CREATE INDEX finding_run ON finding(run, step);
"""

#: From the second version on: what files of layer values hold, with their shares of the overview; and the axes of a run
#: in the order in which they came. Runs with files of the old form are registered anew, which sets those aside.
LAYER_PARTS = """
UPDATE run SET stale = 1 WHERE id IN
  (SELECT r.run FROM segment_run r JOIN segment s ON s.id = r.segment WHERE s.family = 'layers');
DROP TABLE layer_stat;
DROP TABLE axis;
CREATE TABLE axis(id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  digest TEXT NOT NULL, names TEXT NOT NULL, UNIQUE(run, digest));
CREATE TABLE layer_part(id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segment(id) ON DELETE CASCADE,
  axis TEXT NOT NULL, stat TEXT NOT NULL, rank INTEGER NOT NULL, series INTEGER NOT NULL, n INTEGER NOT NULL,
  step0 INTEGER NOT NULL, step1 INTEGER NOT NULL, low TEXT NOT NULL, high TEXT NOT NULL, layers BLOB NOT NULL,
  grid BLOB);
CREATE INDEX layer_part_segment ON layer_part(segment, axis, stat, rank);
"""

#: From the third version on: versions of artifacts that runs made (`output`) and used (`input`); `body` is the record
#: as its file holds it, `mark` when the folder of a run's records changed last.
ARTIFACTS = """
DROP TABLE IF EXISTS artifact;
DROP TABLE IF EXISTS artifact_mark;
CREATE TABLE artifact(id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,
  project TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL, direction TEXT NOT NULL,
  digest TEXT, bytes INTEGER, uri TEXT, metadata TEXT NOT NULL, created INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX artifact_run ON artifact(run);
CREATE INDEX artifact_name ON artifact(project, name, version);
CREATE INDEX artifact_digest ON artifact(digest);
DROP TABLE IF EXISTS media;
CREATE TABLE media(run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, name TEXT NOT NULL, kind TEXT NOT NULL,
  n INTEGER NOT NULL, first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, PRIMARY KEY(run, name, kind))
  WITHOUT ROWID;
CREATE TABLE artifact_mark(run INTEGER PRIMARY KEY REFERENCES run(id) ON DELETE CASCADE, mark INTEGER NOT NULL);
"""

#: Overviews and JSON are read by key; the pages of the write-ahead log are given back when the maintainer is idle.
SETTINGS = """
PRAGMA page_size=8192;
PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA journal_mode=WAL;
"""

__all__ = ["ARTIFACTS", "LAYER_PARTS", "SETTINGS", "TABLES"]
