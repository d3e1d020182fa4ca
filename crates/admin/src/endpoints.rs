//! The endpoints, one function each.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::routing::{get, post};
use serde_json::json;
use sluice_proxy::observe::metrics::Format;
use tokio::sync::Semaphore;

use crate::answer::{document, problem, text, typed};
use crate::{Gateway, guard};

#[derive(Clone)]
struct Shared {
    gateway: Arc<dyn Gateway>,
    /// One scrape at a time: a second one would cost the same work again.
    scrapes: Arc<Semaphore>,
}

/// All endpoints.
pub(crate) fn router(gateway: Arc<dyn Gateway>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/healthz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Shared { gateway, scrapes: Arc::new(Semaphore::new(1)) })
        .layer(from_fn(guarded))
}

async fn guarded(request: Request, next: Next) -> Response<Body> {
    match guard::refuse(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// The control thread turns: otherwise nobody would answer.
async fn livez() -> Response<Body> {
    text(StatusCode::OK, "ok\n")
}

/// Each check on a line of its own with `?verbose`, and whenever one failed.
async fn readyz(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response<Body> {
    let readiness = shared.gateway.readiness();
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let mut lines = String::new();
    for check in &readiness.checks {
        match &check.result {
            Ok(()) if !verbose => {}
            Ok(()) => lines.push_str(&format!("[+] {}: ok\n", check.name)),
            Err(reason) => lines.push_str(&format!("[-] {}: {reason}\n", check.name)),
        }
    }
    match readiness.is_ready() {
        true => text(StatusCode::OK, lines + "ok\n"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, lines + "not ready\n"),
    }
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response<Body> {
    // Several Accept fields are one list (RFC 9110 section 5.3).
    let accept: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(Some(&accept.join(",")));
    let Ok(permit) = shared.scrapes.clone().acquire_owned().await else { return internal() };
    // On a thread of its own: a long scrape may not delay the health checks of this thread.
    let rendered = tokio::task::spawn_blocking(move || {
        let text = shared.gateway.metrics(format);
        drop(permit);
        text
    });
    match rendered.await {
        Ok(body) => typed(StatusCode::OK, format.content_type(), body),
        Err(_) => internal(),
    }
}

async fn status(State(shared): State<Shared>) -> Response<Body> {
    document(&shared.gateway.status())
}

async fn reload(State(shared): State<Shared>) -> Response<Body> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the control runtime is not a worker; a reload outlives its client"
    )]
    let reloading = tokio::spawn(shared.gateway.reload());
    match reloading.await {
        Ok(Ok(revision)) => document(&json!({ "revision": revision })),
        Ok(Err(problems)) => {
            let detail = "The configuration has problems; what ran before runs on.";
            let more = [("problems", problems)];
            problem(StatusCode::UNPROCESSABLE_ENTITY, "configuration-refused", detail, more)
        }
        Err(_) => internal(),
    }
}

async fn not_found() -> Response<Body> {
    let detail = "There is /livez, /readyz, /healthz, /metrics, /v1/status and /v1/reload.";
    problem(StatusCode::NOT_FOUND, "not-found", detail, [])
}

async fn method_not_allowed() -> Response<Body> {
    let detail = "The Allow field lists the methods of this path.";
    problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail, [])
}

fn internal() -> Response<Body> {
    let detail = "The request could not be answered; the diagnostic log may say why.";
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail, [])
}
