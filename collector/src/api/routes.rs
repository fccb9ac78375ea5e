//! Routes, by what they ask of a token.
//!
//! **Owns** that every route is known: the router is made of these lists alone, so a test can hold them against the
//! description (`openapi.json`). **Does not own** which routes there are (`api.rs`), or tokens (`auth.rs`).

use axum::Router;
use axum::middleware;
use axum::routing::MethodRouter;

use super::Api;
use super::auth::{self, Need};

/// Routes that ask the same of a token.
#[derive(Debug)]
pub(super) struct Routes {
    /// `None`: they ask for no token.
    need: Option<Need>,
    pub(super) routes: Vec<(&'static str, MethodRouter<Api>)>,
}

impl Routes {
    pub(super) fn new(need: Option<Need>) -> Self {
        Self { need, routes: Vec::new() }
    }

    /// One more; each method of it is to be described in `openapi.json`.
    pub(super) fn route(mut self, path: &'static str, methods: MethodRouter<Api>) -> Self {
        self.routes.push((path, methods));
        self
    }

    /// A router that lets those pass who may.
    pub(super) fn guarded(self, api: &Api) -> Router<Api> {
        let add = |router: Router<Api>, (path, methods)| router.route(path, methods);
        let router = self.routes.into_iter().fold(Router::new(), add);
        match self.need {
            None => router,
            Some(need) => {
                let state = (api.clone(), need);
                router.route_layer(middleware::from_fn_with_state(state, auth::guard))
            }
        }
    }
}
