"""The tables that the Tracer documents name, for programs that make such a database themselves.

Tracer's own catalog has other tables; `StorageBackend.conn` shows it under these names, and a file of this form can be
imported.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

CREATE_TABLES_SQL = """
CREATE TABLE IF NOT EXISTS runs(
  run_id TEXT PRIMARY KEY, project_name TEXT NOT NULL, run_name TEXT NOT NULL,
  start_time REAL NOT NULL, end_time REAL,
  status TEXT NOT NULL DEFAULT 'running' CHECK(status IN ('running', 'completed', 'failed', 'crashed')),
  config TEXT, total_steps INTEGER NOT NULL DEFAULT 0, total_checkpoints INTEGER NOT NULL DEFAULT 0,
  created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX IF NOT EXISTS runs_by_project ON runs(project_name, start_time DESC);
CREATE INDEX IF NOT EXISTS runs_by_status ON runs(status);

CREATE TABLE IF NOT EXISTS checkpoints(
  checkpoint_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
  step INTEGER NOT NULL, timestamp REAL NOT NULL, metrics TEXT,
  has_samples BOOLEAN NOT NULL DEFAULT 0, sample_path TEXT);
CREATE INDEX IF NOT EXISTS checkpoints_by_run ON checkpoints(run_id, step);

CREATE TABLE IF NOT EXISTS gradient_stats(
  id INTEGER PRIMARY KEY, checkpoint_id TEXT NOT NULL REFERENCES checkpoints ON DELETE CASCADE,
  layer_name TEXT NOT NULL, norm REAL, mean REAL, std REAL, max_val REAL, min_val REAL,
  num_zeros INTEGER, num_nans INTEGER, num_infs INTEGER);
CREATE INDEX IF NOT EXISTS gradients_by_checkpoint ON gradient_stats(checkpoint_id, layer_name);

CREATE TABLE IF NOT EXISTS system_metrics(
  id INTEGER PRIMARY KEY, checkpoint_id TEXT NOT NULL REFERENCES checkpoints ON DELETE CASCADE,
  cpu_percent REAL, memory_percent REAL, gpu_metrics TEXT);
CREATE INDEX IF NOT EXISTS system_by_checkpoint ON system_metrics(checkpoint_id);

CREATE TABLE IF NOT EXISTS anomalies(
  id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, checkpoint_id TEXT NOT NULL,
  step INTEGER NOT NULL, anomaly_type TEXT NOT NULL, severity TEXT NOT NULL DEFAULT 'medium', details TEXT,
  detected_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX IF NOT EXISTS anomalies_by_run ON anomalies(run_id, step);

CREATE TABLE IF NOT EXISTS schema_version(
  version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
"""

__all__ = ["CREATE_TABLES_SQL", "SCHEMA_VERSION"]
