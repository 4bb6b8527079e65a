//! `--reload`: the app is loaded again when one of its files changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use anyserve_core::{Control, Order};
use anyserve_worker::Pool;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::Event;

/// Quiet time after a change before the app is loaded: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(150);
/// Changes that may wait; beyond that they are one all the same.
const MAX_CHANGES: usize = 64;

/// Watches the files of the app and loads it again when one changes, for the life of the replica.
pub(crate) struct Reloader {
    pool: Pool,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<PathBuf>,
}

// === impl Reloader ===

impl Reloader {
    /// Begins to watch.
    ///
    /// # Errors
    /// If the system has no watches left.
    pub(crate) fn start(pool: Pool) -> Result<Self> {
        let (tell, changes) = mpsc::channel(MAX_CHANGES);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_create() || event.kind.is_modify() || event.kind.is_remove() {
                // What does not fit would say the same again.
                event.paths.into_iter().for_each(|path| _ = tell.try_send(path));
            }
        });
        let watcher = watcher.context("--reload: files cannot be watched")?;
        let mut reloader = Self { pool, watcher, watched: BTreeSet::new(), changes };
        reloader.watch()?;
        Ok(reloader)
    }

    /// Watches until it is dropped.
    ///
    /// # Cancel safety
    /// Safe; a load under way goes on.
    pub(crate) async fn run(mut self, tell: impl Fn(Event)) {
        while let Some(path) = self.changes.recv().await {
            if !self.concerns(&path) {
                continue;
            }
            while tokio::time::timeout(QUIET, self.changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            tell(Event::Reloading { path });
            let error = self.pool.order(Order::Reload).await.err();
            let error = error.map(|error| match error.traceback {
                Some(traceback) => format!("{}\n\n{}", error.message, traceback.trim_end()),
                None => error.message,
            });
            tell(Event::Reloaded { error });
            if let Err(error) = self.watch() {
                tracing::warn!(error = format!("{error:#}"), "not every file of the app is watched");
            }
        }
    }

    /// Watches the folders of the app's files: editors replace files, and a watch on a file would go with it.
    fn watch(&mut self) -> Result<()> {
        let files = self.pool.files();
        let folders: BTreeSet<_> = files.iter().filter_map(|file| file.parent()).map(Path::to_owned).collect();
        for folder in folders.difference(&self.watched.clone()) {
            let watched = self.watcher.watch(folder, RecursiveMode::NonRecursive);
            watched.with_context(|| format!("--reload: {} cannot be watched", folder.display()))?;
            self.watched.insert(folder.clone());
        }
        Ok(())
    }

    /// Whether a change of this file may change the app.
    fn concerns(&self, path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "py") || self.pool.files().iter().any(|file| file == path)
    }
}
