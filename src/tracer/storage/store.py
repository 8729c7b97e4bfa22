"""The store: every question about recorded runs, and everything that changes what is kept.

A facade: each method is a sentence about what it does and a call of the module that does it. Those marked
"standard library" load neither numpy nor DuckDB, so `tracer list` and `show` answer at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tracer import events, runfile
from tracer.errors import SchemaTooNew, StoreError
from tracer.storage import index, listing, resolve, summaries
from tracer.storage.catalog import Catalog, CatalogDamaged
from tracer.storage.ground import Ground, Progress
from tracer.storage.values import (
    Buckets,
    CheckpointRow,
    CheckReport,
    Expired,
    ExportReport,
    FindingRow,
    LayerAxis,
    LayerHistograms,
    LayerMatrix,
    LayerOverview,
    RebuildReport,
    RunRow,
    Series,
    SeriesRow,
    Table,
    Update,
)

if TYPE_CHECKING:
    from tracer.storage.artifacts import Artifact
    from tracer.storage.incoming import TakenIn
    from tracer.storage.listing import Condition
    from tracer.storage.log_rows import LogRow
    from tracer.storage.media import MediaRow, MediaSummary
    from tracer.transfer import Event, RunInfo

T = TypeVar("T")
logger = logging.getLogger("tracer")


class Store(Ground):
    """The runs below one folder, usually `.tracer`. Make one with `Store.open`.

    Example:
        >>> with Store.open(".tracer") as store:  # doctest: +SKIP
        ...     print(store.run("@last").name, store.series(store.run("@last").uid, "loss").value[-1])
    """

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> Store:
        """Open the store in a folder.

        Args:
            path: The store's folder, usually `.tracer`.
            create: Make it where there is none.

        Raises:
            StoreError: There is none, or it cannot be made.
            SchemaTooNew: A newer Tracer wrote it.

        Example:
            >>> store = Store.open(".tracer", create=True)  # doctest: +SKIP
        """
        base = os.fspath(path)
        try:
            if create:
                runfile.prepare_store(base)
            elif not os.path.isdir(os.path.join(base, "runs")) and not os.path.exists(
                os.path.join(base, runfile.STORE)
            ):
                message = (
                    f"There is no store in {base}. Record a run with `tracer.init(...)` first, or name the folder that "
                    "holds one: `tracer --storage PATH`, or TRACER_STORAGE."
                )
                raise StoreError(message)
            said = runfile.read(base, runfile.STORE)
        except OSError as error:
            message = f"The store {base} cannot be opened ({error.strerror}). Mend its rights, or name another folder."
            raise StoreError(message) from error
        except ValueError as error:
            message = (
                f"{os.path.join(base, runfile.STORE)} is damaged ({error}). Remove the file; the runs need it not."
            )
            raise StoreError(message) from error
        written = said.get("format", runfile.FORMAT)
        if not isinstance(written, int) or written > runfile.FORMAT:
            newer = f"The store {base} has format {written!r}; this Tracer reads up to {runfile.FORMAT}."
            message = f"{newer} Update: pip install -U ml-tracer"
            raise SchemaTooNew(message)
        return cls(path)

    # Reading, with the standard library.

    def runs(
        self,
        *,
        project: str | None = None,
        status: str | None = None,
        name: str | None = None,
        limit: int | None = None,
        sort: str = "-started",
        where: Sequence[Condition] | None = None,
    ) -> list[RunRow]:
        """Return runs, the newest first; new folders are found, and whether runs still live is looked at.

        Args:
            project: Only this project.
            status: Only this status: `running`, `completed`, `failed` or `crashed`.
            name: Only runs of this name; with `*` or `?` a pattern.
            limit: At most so many.
            sort: A field of `RunRow`, `metric:<name>` or `config:<key>`; with `-` before it the largest first.
            where: Further conditions `(column, operator, value)` on fields, `config.<key>` and `metric.<name>`;
                operators are `= != < <= > >= ~`.

        Raises:
            ValueError: A column or an operator is not known.

        Example:
            >>> store.runs(where=[("config.lr", "<", 0.1)], sort="metric:loss")  # doctest: +SKIP
        """
        return self._healed(lambda: resolve.list_runs(self, project, status, name, limit, sort, where or ()))

    def run(self, name: str) -> RunRow:
        """Return one run.

        Args:
            name: Its name (of equal names the newest), its id, an unambiguous beginning of the id, `project/name`,
                `@last`, or `@last:2` for the one before.

        Raises:
            RunNotFound: None answers to that; the message names near ones.

        Example:
            >>> store.run("@last").status  # doctest: +SKIP
            'completed'
        """
        return self._healed(lambda: resolve.find_run(self, name))

    def matches(self, name: str) -> list[RunRow]:
        """Return all runs that answer to a name as `run` understands it, the newest first.

        Example:
            >>> [row.uid for row in store.matches("baseline")]  # doctest: +SKIP
        """
        return self._healed(lambda: resolve.matches(self, name))

    def metrics(self, uid: str) -> list[SeriesRow]:
        """Return the summary of each series of a run, sorted by name and rank; values of a moment ago included.

        Example:
            >>> {row.metric: row.last for row in store.metrics(uid)}  # doctest: +SKIP
            {'loss': 0.25}
        """
        return self._healed(lambda: summaries.metrics(self, uid))

    def last_values(self, uids: Sequence[str] | None = None, rank: int = 0) -> dict[str, dict[str, float]]:
        """Return the last value of every metric of these runs, or of all, in one query.

        Example:
            >>> store.last_values()[uid]["loss"]  # doctest: +SKIP
            0.25
        """
        return self._healed(lambda: summaries.last_values(self, uids, rank))

    def checkpoints(self, uid: str) -> list[CheckpointRow]:
        """Return the checkpoints of a run in the order of their steps.

        Example:
            >>> [row.step for row in store.checkpoints(uid)]  # doctest: +SKIP
            [100, 200]
        """
        return self._healed(lambda: summaries.checkpoints(self, uid))

    def findings(self, uid: str, kinds: Sequence[str] | None = None) -> list[FindingRow]:
        """Return the findings of a run in the order of their steps.

        Args:
            uid: The run.
            kinds: Only these kinds.

        Example:
            >>> store.findings(uid, kinds=["nan_loss"])  # doctest: +SKIP
        """
        return self._healed(lambda: summaries.findings(self, uid, kinds))

    def texts(self, uid: str, metric: str) -> list[tuple[int, int, object]]:
        """Return what was logged under a name and is no number: step, time and value, sorted by step.

        Example:
            >>> store.texts(uid, "phase")  # doctest: +SKIP
            [(0, 1700000000000000, 'warm-up')]
        """
        from tracer.storage import texts

        return self._healed(lambda: texts.texts(self, uid, metric))

    def log_lines(
        self,
        uid: str,
        *,
        rank: int | None = None,
        start: int | None = None,
        stop: int | None = None,
        since: int | None = None,
    ) -> list[LogRow]:
        """Return what a run printed, logged and noted, in the order of time.

        Args:
            uid: The run.
            rank: Only this rank's.
            start: From this step on.
            stop: Before this step.
            since: From this time on, in microseconds.

        Returns:
            Rows of the kinds `line` (whose `name` is the stream), `log` (the logger) and `event`.

        Example:
            >>> [row.body for row in store.log_lines(uid) if row.name == "stderr"]  # doctest: +SKIP
        """
        from tracer.storage import log_lines

        return self._healed(lambda: log_lines.log_lines(self, uid, rank=rank, start=start, stop=stop, since=since))

    def follow(self, uid: str, position: str | None = None, *, poll_s: float = 0.5) -> Iterator[Update]:
        """Yield what a run records from now on, until it ends; standard library.

        Args:
            uid: The run.
            position: The `position` of an earlier update, to go on after it; without it everything that is not in a
                file yet comes first.
            poll_s: How often the journal is looked at.

        Example:
            >>> for update in store.follow(uid):  # doctest: +SKIP
            ...     print(update.values)
        """
        from tracer.storage.follow import follow

        return follow(self, uid, position, poll_s=poll_s)

    # Reading arrays.

    def series(
        self, uid: str, metric: str, *, rank: int = 0, start: int | None = None, stop: int | None = None
    ) -> Series:
        """Return every value of a metric, one per step, sorted by step; where a step came twice, the last.

        Args:
            uid: The run.
            metric: The metric's name; one that was never logged gives an empty series.
            rank: Whose values.
            start: From this step on.
            stop: Before this step.

        Example:
            >>> store.series(uid, "loss").value.min()  # doctest: +SKIP
        """
        from tracer.storage import series

        return self._healed(lambda: series.read_series(self, uid, metric, rank, start, stop))

    def overview(self, uid: str, metric: str, *, rank: int = 0) -> Buckets:
        """Return a whole series in at most 1,024 buckets; opens no Parquet file.

        Example:
            >>> buckets = store.overview(uid, "loss")  # doctest: +SKIP
            >>> plot(buckets.first_step, buckets.mean)  # doctest: +SKIP
        """
        from tracer.storage import series

        return self._healed(lambda: series.read_overview(self, uid, metric, rank))

    def buckets(
        self,
        uid: str,
        metric: str,
        *,
        rank: int = 0,
        start: int | None = None,
        stop: int | None = None,
        count: int = 1000,
    ) -> Buckets:
        """Return a range of a series in at most `count` buckets, from overview, rollup or points, whatever is enough.

        Example:
            >>> store.buckets(uid, "loss", start=1000, stop=2000, count=100)  # doctest: +SKIP
        """
        from tracer.storage import series

        return self._healed(lambda: series.read_buckets(self, uid, metric, rank, start, stop, count))

    def layers(
        self,
        uid: str,
        statistic: str,
        *,
        axis: str = "gradients",
        layers: Sequence[str] | None = None,
        rank: int = 0,
        start: int | None = None,
        stop: int | None = None,
    ) -> LayerMatrix:
        """Return one statistic of all layers over time.

        Args:
            uid: The run.
            statistic: `norm`, `mean`, `std`, `max`, `min`, `zeros`, `nans` or `infs`.
            axis: What was measured, such as `gradients`.
            layers: Only these layers, in this order.
            rank: Whose values.
            start: From this step on.
            stop: Before this step.

        Example:
            >>> store.layers(uid, "norm").values.shape  # doctest: +SKIP
            (1000, 52)
        """
        from tracer.storage import layers as room

        key = (axis, statistic, rank)
        return self._healed(lambda: room.read_layers(self, uid, key, layers, start, stop))

    def layer_overview(
        self,
        uid: str,
        statistic: str,
        axis: str = "gradients",
        rank: int = 0,
        buckets: int = 256,
        *,
        start: int | None = None,
        stop: int | None = None,
    ) -> LayerOverview:
        """Return one statistic of all layers in at most `buckets` buckets of steps: what a heat map shows.

        Args:
            uid: The run.
            statistic: `norm`, `mean`, `std`, `max`, `min`, `zeros`, `nans` or `infs`, or another that was recorded.
            axis: What was measured, such as `gradients`.
            rank: Whose values.
            buckets: At most so many, and never more than 256.
            start: From this step on; the first bucket may begin a little earlier.
            stop: Before this step; the last bucket may end a little later.

        Example:
            >>> found = store.layer_overview(uid, "norm")  # doctest: +SKIP
            >>> found.layers[found.max[:, -1].argmax()]  # doctest: +SKIP
            'fc1.weight'
        """
        from tracer.storage import layers as room

        return self._healed(lambda: room.read_overview(self, uid, (axis, statistic, rank), buckets, start, stop))

    def layer_axes(self, uid: str) -> list[LayerAxis]:
        """Return what was measured of layers, with the statistics and the layers of each; standard library.

        Example:
            >>> [one.axis for one in store.layer_axes(uid)]  # doctest: +SKIP
            ['gradients', 'weights']
        """
        return self._healed(lambda: summaries.layer_axes(self, uid))

    def histograms(
        self,
        uid: str,
        layer: str,
        *,
        axis: str = "gradients",
        rank: int = 0,
        start: int | None = None,
        stop: int | None = None,
    ) -> LayerHistograms:
        """Return the histograms of one layer over time: how many values lie between two powers of two.

        Args:
            uid: The run.
            layer: The layer; one of which none was taken gives an empty table.
            axis: What was measured, such as `gradients`.
            rank: Whose values.
            start: From this step on.
            stop: Before this step.

        Example:
            >>> found = store.histograms(uid, "fc1.weight")  # doctest: +SKIP
            >>> found.positive[-1]  # from 2**found.lowest on  # doctest: +SKIP
        """
        from tracer.storage import histograms as room

        return self._healed(lambda: room.read_histograms(self, uid, layer, axis, rank, start, stop))

    def layer_names(self, uid: str, axis: str = "gradients") -> list[str]:
        """Return the names of the layers that were measured, in the model's order; standard library.

        Example:
            >>> store.layer_names(uid)  # doctest: +SKIP
            ['fc1.weight', 'fc1.bias']
        """
        return self._healed(lambda: summaries.layer_names(self, uid, axis))

    def samples(self, uid: str) -> list[Path]:
        """Return the files of samples of a run, sorted by step.

        Example:
            >>> store.samples(uid)[0].name  # doctest: +SKIP
            '100-0.parquet'
        """
        folder = os.path.join(self.run_folder(self.run(uid)), "samples")
        return self._healed(lambda: summaries.samples(folder))

    def sql(self, text: str, limit: int | None = None) -> Table:
        """Answer a question in SQL, read-only; the views are
        `runs params series points rollup layers histograms logs checkpoints findings artifacts`.

        Args:
            text: One `SELECT` or `EXPLAIN`, in DuckDB's dialect.
            limit: At most so many rows.

        Raises:
            StoreError: It is no question, or DuckDB does not understand it.

        Example:
            >>> store.sql("SELECT metric, avg(value) FROM points GROUP BY ALL").rows  # doctest: +SKIP
        """  # noqa: D205 -- the list of views belongs to the sentence
        from tracer.storage import sql

        return self._healed(lambda: sql.query(self, text, limit))

    # Artifacts and media, with the standard library where the run is folded.

    def artifacts(
        self,
        uid: str | None = None,
        *,
        project: str | None = None,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 -- what users call it
        used: bool = False,
    ) -> list[Artifact]:
        """Return versions of artifacts, sorted by project, name and number.

        Args:
            uid: Only what this run made.
            project: Only this project.
            name: Only this name.
            type: Only this type, such as `checkpoint`.
            used: Return instead what runs used.

        Example:
            >>> [artifact.reference for artifact in store.artifacts(project="gpt")]  # doctest: +SKIP
            ['model:v0', 'model:v1']
        """
        from tracer.storage import artifacts as room

        direction = "input" if used else "output"
        return self._healed(
            lambda: room.artifacts(self, run=uid, project=project, name=name, type=type, direction=direction)
        )

    def artifact(self, reference: str, *, project: str | None = None) -> Artifact:
        """Return the version that a reference or a SHA-256 means.

        Args:
            reference: `name`, `name:v3`, `name:alias`; `project/` or `run/` may stand before it.
            project: Where a name is looked for first.

        Raises:
            StoreError: None answers to that, or several do.
            ValueError: The reference cannot be read.

        Example:
            >>> store.artifact("model:latest").download("models")  # doctest: +SKIP
        """
        from tracer.storage import artifacts as room

        return self._healed(lambda: room.find(self, reference, project=project))

    def users_of(self, artifact: Artifact) -> list[Artifact]:
        """Return what runs noted when they used a version; `run` and `run_name` say who.

        Example:
            >>> [one.run_name for one in store.users_of(store.artifact("model:v1"))]  # doctest: +SKIP
        """
        from tracer.storage import artifacts as room

        return self._healed(lambda: room.users(self, artifact))

    def media(
        self, uid: str, name: str | None = None, *, kind: str | None = None, step: int | None = None
    ) -> list[MediaRow]:
        """Return the media of a run in the order of their steps.

        Args:
            uid: The run.
            name: Only this name.
            kind: Only this kind, such as `image`.
            step: Only this step.

        Example:
            >>> [row.step for row in store.media(uid, "samples", kind="image")]  # doctest: +SKIP
        """
        from tracer.storage import media as room

        return self._healed(lambda: room.media(self, uid, name, kind, step))

    def media_summary(self, uid: str) -> list[MediaSummary]:
        """Return what media a run has: names, kinds, how many, from which step to which; standard library.

        Example:
            >>> [(row.name, row.n) for row in store.media_summary(uid)]  # doctest: +SKIP
        """
        from tracer.storage import media as room

        return self._healed(lambda: room.media_summary(self, uid))

    def media_bytes(self, uid: str, row: MediaRow) -> bytes:
        """Return the bytes of a piece of media, after they were compared with their SHA-256.

        Raises:
            StoreError: They are missing or damaged.

        Example:
            >>> store.media_bytes(uid, store.media(uid, kind="image")[-1])[:4]  # doctest: +SKIP
        """
        from tracer.storage import media as room

        return room.media_bytes(self.run_folder(self.run(uid)), row)

    # What travels to other trackers, and comes from them.

    def info(self, uid: str) -> RunInfo:
        """Return what is known of a run besides what happened in it, as it travels.

        Example:
            >>> store.info(uid).params["lr"]  # doctest: +SKIP
            0.1
        """
        from tracer.storage import outgoing

        return self._healed(lambda: outgoing.info(self, self.run(uid)))

    def outgoing(self, uid: str, kinds: Collection[str] | None = None) -> Iterator[Event]:
        """Yield everything that a run holds: points series by series, then texts, lines, media, histograms, artifacts.

        Args:
            uid: The run.
            kinds: Only these kinds of `tracer.transfer`; without it all but the statistics of layers.

        Example:
            >>> sum(len(event) for event in store.outgoing(uid, {"points"}))  # doctest: +SKIP
            2000
        """
        from tracer.storage import outgoing

        return outgoing.events(self, self.run(uid), kinds)

    def digests(self, uid: str) -> dict[tuple[str, int], tuple[int, str]]:
        """Return of each series that travels how many values it has, and their digest: metric and rank → both.

        Example:
            >>> store.digests(uid) == other.digests(uid)  # doctest: +SKIP
            True
        """
        from tracer.storage import outgoing

        return self._healed(lambda: outgoing.digests(self, self.run(uid).uid))

    def take_in(
        self, info: RunInfo, events: Iterable[Event], *, progress: Callable[[int], None] | None = None
    ) -> TakenIn:
        """Keep a run of another tracker as one of ours; one that is here already becomes what the source is now.

        Args:
            info: What is known of it; `origin` tells which run it is, however often it comes.
            events: What happened in it.
            progress: Called with how many points have come.

        Raises:
            StoreError: The disk does not take it, or the run still records.

        Example:
            >>> store.take_in(other.info(uid), other.outgoing(uid)).points  # doctest: +SKIP
            2000
        """
        from tracer.storage import incoming

        self._healed(self.refresh)  # before, not around: what was read of the events once cannot be read again
        return incoming.take_in(self, info, events, progress=progress)

    # Changing.

    def add_findings(self, uid: str, findings: Sequence[events.Finding], source: str = "offline") -> int:
        """Keep findings with a run; one of the same kind, step and metric or layer is kept once.

        Returns:
            How many were new.

        Example:
            >>> store.add_findings(uid, [events.Finding("spike", "low", 10, {"metric": "loss"})])  # doctest: +SKIP
            1
        """
        from tracer.storage.findings import add_findings

        return self._healed(lambda: add_findings(self, uid, findings, source))

    def fold(self, uid: str | None = None, progress: Progress | None = None) -> int:
        """Turn journals into Parquet now, of one run or of all.

        Returns:
            How many points were folded.

        Example:
            >>> store.fold()  # doctest: +SKIP
            50000
        """
        from tracer.storage.fold import fold_store

        return self._healed(lambda: fold_store(self, uid, progress))

    def maintain(self, seconds: float = 1.0) -> int:
        """Do what is waiting, as long as nobody else does: fold what ended, say what crashed, remove what is dead.

        Args:
            seconds: No new piece of work is begun after this time.

        Returns:
            How many points were folded; 0 too when another process maintains the store.

        Example:
            >>> store.maintain(0.5)  # doctest: +SKIP
        """
        from tracer.storage import retention
        from tracer.storage.fold import maintain

        points = self._healed(lambda: maintain(self, seconds))
        with contextlib.suppress(StoreError), self.writing(wait_s=0.0):  # another maintainer keeps them as well
            retention.keep_promises(self)
        return points

    def release(self, uid: str) -> int:
        """Give back the folded part of a run's journal that was kept for lanes of back ends and is needed no more.

        Returns:
            How many segments were removed.

        Example:
            >>> store.release(uid)  # doctest: +SKIP
        """
        from tracer.storage.fold import release_held

        return self._healed(lambda: release_held(self, uid))

    def compact(self, uid: str | None = None, *, grace_s: float | None = None, progress: Progress | None = None) -> int:
        """Merge small files of a run, or of all; what they replace is removed after a grace period.

        Returns:
            How many files were merged away.

        Example:
            >>> store.compact(uid)  # doctest: +SKIP
        """
        from tracer.storage.compact import compact_store

        return self._healed(lambda: compact_store(self, uid, grace_s, progress))

    def rebuild(self, progress: Progress | None = None) -> RebuildReport:
        """Build the catalog anew from the folders.

        Example:
            >>> store.rebuild().runs  # doctest: +SKIP
        """
        from tracer.storage.rebuild import rebuild

        return rebuild(self, progress)

    def check(self, *, repair: bool = False, progress: Progress | None = None) -> CheckReport:
        """Read everything and say what is wrong.

        Args:
            repair: Mend what can be mended; what is damaged is set aside, never deleted.
            progress: Called with how many files are read and how many there are.

        Example:
            >>> store.check().is_clean  # doctest: +SKIP
            True
        """
        from tracer.storage.check import check

        if not repair:
            return check(self, repair=False, progress=progress)
        return self._healed(lambda: check(self, repair=True, progress=progress))

    def delete(self, uid: str, *, now: bool = False, force: bool = False) -> int:
        """Move a run to the trash.

        Args:
            uid: The run.
            now: Remove it for good.
            force: Even while it records.

        Returns:
            The bytes that became free; 0 while the run can be restored.

        Raises:
            StoreError: The run is still recording.

        Example:
            >>> store.delete(uid, now=True)  # doctest: +SKIP
        """
        from tracer.storage import retention

        def work() -> int:
            row = next((row for row in self.trash() if row.uid == uid), None) or self.run(uid)
            retention.refuse_live(row, force=force)
            with self.writing() as catalog:
                if row.trashed is None:
                    retention.to_trash(catalog, self.base, row.folder)
                return retention.purge(catalog, self.base, row.folder) if now else 0

        return self._healed(work)

    def restore(self, uid: str) -> None:
        """Bring a run back from the trash.

        Args:
            uid: The run's id or name.

        Raises:
            RunNotFound: It is not in the trash.

        Example:
            >>> store.restore(uid)  # doctest: +SKIP
        """
        from tracer.storage import retention

        def work() -> None:
            row = resolve.choose(uid, self.trash(), "in the trash")
            with self.writing() as catalog:
                retention.from_trash(catalog, self.base, row.folder)

        self._healed(work)

    def trash(self) -> list[RunRow]:
        """Return the runs in the trash, the last deleted first.

        Example:
            >>> [row.name for row in store.trash()]  # doctest: +SKIP
        """
        clause = "WHERE r.trashed IS NOT NULL ORDER BY r.trashed DESC"
        return self._healed(lambda: [listing.run_row(row) for row in listing.runs_where(self.catalog, clause)])

    def empty_trash(self, days: float | None = None) -> int:
        """Remove for good what has been in the trash for so many days (7 when not said); return the bytes freed.

        Example:
            >>> store.empty_trash(days=0)  # doctest: +SKIP
        """
        from tracer.storage import retention

        def work() -> int:
            with self.writing() as catalog:
                index.index(catalog, self.base, index.changed(catalog, self.base)[0])
                return retention.empty_trash(catalog, self.base, days=retention.TRASH_DAYS if days is None else days)

        return self._healed(work)

    def expire(
        self, *, apply: bool = False, older_than_days: float | None = None, progress: Progress | None = None
    ) -> list[Expired]:
        """List the runs whose time is up, and with `apply` move them to the trash; see `retention.expire`.

        Example:
            >>> store.expire(older_than_days=90)  # doctest: +SKIP
        """
        from tracer.storage import retention

        return self._healed(
            lambda: retention.expire(self, apply=apply, older_than_days=older_than_days, progress=progress)
        )

    def export(
        self,
        uids: Sequence[str],
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002 -- the word of the command line
        *,
        metrics: Sequence[str] | None = None,
        progress: Any = None,  # noqa: ANN401 -- see `export.export_runs`
        overwrite: bool = False,
    ) -> ExportReport:
        """Write runs to files of another format; see `export.export_runs`.

        Example:
            >>> store.export([uid], "run.csv", "csv")  # doctest: +SKIP
        """
        from tracer.storage import export

        return export.export_runs(self, uids, path, format, metrics=metrics, progress=progress, overwrite=overwrite)

    def sizes(self) -> dict[str, int]:
        """Return the bytes the store takes, by kind.

        Example:
            >>> store.sizes()["points"]  # doctest: +SKIP
        """
        from tracer.storage import retention

        return retention.sizes(self.base)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside.

    def _fill(self, catalog: Catalog) -> None:
        """Index the folders in a catalog that was just made; runs that were folded before are read again."""
        index.index(catalog, self.base, index.list_runs(self.base))
        folded = catalog.value("SELECT count(*) FROM run WHERE stale = 1")
        trash = os.path.join(self.base, "trash")
        if folded or (os.path.isdir(trash) and os.listdir(trash)):
            from tracer.storage.rebuild import rebuild

            logger.warning("The catalog of %s is missing; it is built anew from the run folders.", self.base)
            rebuild(self)

    def _healed(self, work: Callable[[], T]) -> T:
        """Do something; when the catalog turns out to be damaged, build it anew and do it again."""
        try:
            return work()
        except CatalogDamaged as error:
            from tracer.storage.rebuild import replace_damaged

            replace_damaged(self, error)
            try:
                return work()
            except CatalogDamaged as again:
                replace_damaged(self, again, must=True)
                return work()
        except (json.JSONDecodeError, zlib.error) as error:
            # Other files that hold JSON have errors of their own: this is a cell of the catalog.
            logger.warning("A cell of the catalog of %s is damaged (%s); it is built anew.", self.base, error)
            self.rebuild()
            return work()


__all__ = ["Store"]
