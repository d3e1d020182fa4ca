//! Tells the control loop that the configuration's file may have changed, or one that it names.
//!
//! Folders are watched, not files: editors replace files, and Kubernetes swaps a link beside them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use sluice_proxy::observe::diagnostic::Diagnostics;
use tokio::sync::mpsc;

use crate::run::Request;

/// A file is looked at when its folder has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);

/// Or, where something else in it never rests (a log), after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A watch; it ends when it is dropped.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    /// The configuration's folder.
    home: PathBuf,
    /// All that are watched.
    folders: BTreeSet<PathBuf>,
    diagnostics: Diagnostics,
}

/// Watches a configuration's file. What cannot be watched is told to the operator: SIGHUP still works.
pub(crate) fn start(
    path: &Path,
    requests: mpsc::Sender<Request>,
    diagnostics: &Diagnostics,
) -> Option<Watch> {
    let (events, heard) = mpsc::channel(1);
    let handler = move |event: notify::Result<notify::Event>| {
        // What is full holds an event already: one is as good as many.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = events.try_send(());
        }
    };
    let watcher = match notify::recommended_watcher(handler) {
        Ok(watcher) => watcher,
        Err(error) => {
            diagnostics.warn("no file is watched: send SIGHUP after a change", &[("error", &error)]);
            return None;
        }
    };
    forward(heard, requests);
    let (home, folders, diagnostics) = (folder(path), BTreeSet::new(), diagnostics.clone());
    let mut watch = Watch { watcher, home, folders, diagnostics };
    watch.follow(&[]);
    Some(watch)
}

impl Watch {
    /// Watches these files beside the configuration's, and no others any more.
    pub(crate) fn follow(&mut self, files: &[PathBuf]) {
        let mut wanted: BTreeSet<PathBuf> = files.iter().map(|file| folder(file)).collect();
        wanted.insert(self.home.clone());
        for left in self.folders.difference(&wanted) {
            // One that has gone is no longer watched anyway.
            let _ = self.watcher.unwatch(left);
        }
        self.folders.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if self.folders.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.folders.insert(folder),
                Err(error) => self.diagnostics.warn(
                    "a folder is not watched: send SIGHUP after a change in it",
                    &[("folder", &folder.display()), ("error", &error)],
                ),
            }
        }
    }
}

fn folder(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

#[expect(clippy::disallowed_methods, reason = "the watch lives on the control thread, beside the workers")]
fn forward(mut heard: mpsc::Receiver<()>, requests: mpsc::Sender<Request>) {
    tokio::spawn(async move {
        while heard.recv().await.is_some() {
            let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, heard.recv()).await {} };
            // Either way it is time to look.
            let _ = tokio::time::timeout(PATIENCE, quiet).await;
            if requests.send(Request::Changed).await.is_err() {
                return;
            }
        }
    });
}
