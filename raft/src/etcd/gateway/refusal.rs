//! Refusals as grpc-gateway words them.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use tonic::body::Body;
use tonic::{Code, Status};

/// The refusal of a call.
pub(super) fn of(status: &Status) -> Response<Body> {
    let message = status.message();
    let text = json!({ "error": message, "message": message, "code": i32::from(status.code()) });
    super::whole(http_code(status.code()), text.to_string().into())
}

/// The refusal of a stream, as its last line.
pub(super) fn line(status: &Status) -> String {
    let code = http_code(status.code());
    let error = json!({
        "grpc_code": i32::from(status.code()),
        "http_code": code.as_u16(),
        "message": status.message(),
        "http_status": code.canonical_reason().unwrap_or_default(),
    });
    format!("{}\n", json!({ "error": error }))
}

/// There is no such call, or it is not made like this.
pub(super) fn text(code: StatusCode) -> Response<Body> {
    plain(code, format!("{}\n", code.canonical_reason().unwrap_or_default()))
}

/// An answer that etcd does not call JSON.
pub(super) fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = super::with(code, Body::new(Full::new(text.into())));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
