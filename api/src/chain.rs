//! The one ordered list of filters that every request passes on its way in.

mod audit;
mod authenticate;
mod authorize;
mod compress;
mod deadline;
mod impersonate;
mod in_flight;
mod indent;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use tower::ServiceBuilder;

pub(crate) use audit::ClientAddress;
pub(crate) use compress::takes_gzip;

use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::state::Api;

/// Puts the filters before `routes`, the first one outermost.
pub(crate) fn around(routes: Router, api: &Arc<Api>) -> Router {
    let with = || Arc::clone(api);
    routes.layer(
        ServiceBuilder::new()
            .layer(from_fn(request_info))
            .layer(from_fn_with_state(with(), trace::filter))
            .layer(from_fn(compress::filter))
            .layer(from_fn(indent::filter))
            .layer(from_fn_with_state(with(), deadline::filter))
            .layer(from_fn_with_state(with(), authenticate::filter))
            .layer(from_fn_with_state(with(), audit::filter))
            .layer(from_fn_with_state(with(), impersonate::filter))
            .layer(from_fn_with_state(with(), in_flight::filter))
            .layer(from_fn_with_state(with(), authorize::filter)),
    )
}

/// Reads what the request asks for, for the filters behind.
async fn request_info(mut request: Request, next: Next) -> Response {
    let query = Query::of(request.uri());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    request.extensions_mut().insert(Arc::new(info));
    request.extensions_mut().insert(Arc::new(query));
    next.run(request).await
}
