//! Tells the control loop that the configuration's file may have changed.
//!
//! The folder is watched, not the file: editors replace files, and Kubernetes swaps a link beside them.

use std::path::Path;
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use sluice_proxy::observe::diagnostic::Diagnostics;
use tokio::sync::mpsc;

use crate::run::Request;

/// A file is looked at when its folder has been quiet for so long.
const QUIET: Duration = Duration::from_millis(100);

/// Or, where something else in it never rests (a log), after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches; ends when what it gives is dropped. A folder that cannot be watched is told to the operator:
/// SIGHUP still works.
pub(crate) fn start(
    path: &Path,
    requests: mpsc::Sender<Request>,
    diagnostics: &Diagnostics,
) -> Option<RecommendedWatcher> {
    let (events, heard) = mpsc::channel(1);
    let handler = move |event: notify::Result<notify::Event>| {
        // What is full holds an event already: one is as good as many.
        if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
            let _ = events.try_send(());
        }
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(handler)
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    match watcher {
        Ok(watcher) => {
            forward(heard, requests);
            Some(watcher)
        }
        Err(error) => {
            let path = path.display();
            diagnostics.warn(
                "the configuration's file is not watched: send SIGHUP after a change",
                &[("file", &path), ("error", &error)],
            );
            None
        }
    }
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
