//! `/api/status`: what the registry is doing, as `sampan status --json` says it, for those who may see everything.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Mutex;

use super::State;
use super::error::HttpError;
use crate::auth::Ask;

/// It is made anew no more often, however many ask: it asks the node for each name that is followed.
const FRESH: Duration = Duration::from_secs(1);

/// Whoever knows what the registry is doing.
type Say = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

/// What is said, and when it was said last.
pub(crate) struct Status {
    say: Say,
    said: Mutex<Option<(Instant, Value)>>,
}

impl Status {
    pub(crate) fn new(say: impl Fn() -> BoxFuture<'static, Value> + Send + Sync + 'static) -> Self {
        Self { say: Arc::new(say), said: Mutex::default() }
    }

    async fn now(&self) -> Value {
        let mut said = self.said.lock().await;
        match &*said {
            Some((at, value)) if at.elapsed() < FRESH => value.clone(),
            _ => {
                let value = (self.say)().await;
                *said = Some((Instant::now(), value.clone()));
                value
            }
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").finish_non_exhaustive()
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig, prefix: &str) {
    config.route(&format!("{prefix}/api/status"), web::get().to(get));
}

async fn get(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    answer(&request, &state).await.unwrap_or_else(|error| error.respond())
}

async fn answer(request: &HttpRequest, state: &State) -> Result<HttpResponse, HttpError> {
    let failed = |_: &HttpError| {
        state.metrics.auth_failures.inc();
    };
    let caller = state.access.identify(request, Ask::Status).await.inspect_err(failed)?;
    state.access.check(request, &caller, Ask::Status)?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(state.status.now().await))
}
