//! Where errors meet HTTP: each one becomes a status and an OCI code here and nowhere else.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use super::gateway::GatewayError;
use super::range;
use super::v2::path::PathError;
use super::v2::uploads;
use crate::auth::{Denied, LoginError};
use crate::content::{ContentError, PutError};
use crate::registry::RegistryError;

/// A client that meets a full disk or a stopping server may come back after so many seconds.
const RETRY_SECONDS: u32 = 10;
/// One whose password had no place to wait, after so many.
const LOGIN_RETRY_SECONDS: u32 = 2;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("this needs a login that may do it")]
    NeedsLogin { challenge: String },
    /// What the client brought does not show who it is.
    #[error("{error}")]
    Login { error: LoginError, challenge: String },
    #[error("a request has one Authorization header")]
    SeveralCredentials,
    #[error("this resource takes {allow}")]
    Method { allow: &'static str },
    #[error("{0}")]
    Query(#[from] QueryError),
    #[error("the content has {size} bytes, and none of them are in the range")]
    Range { size: u64 },
    /// Of an upload: the client hears where it goes on.
    #[error("{error}")]
    Upload { error: Box<RegistryError>, location: String },
    #[error("a manifest was cut off")]
    ManifestCut,
    #[error("other manifests that are on their way take all the room; try again")]
    ManifestsBusy,
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// A parameter or header that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("the query string cannot be read")]
    Form,
    #[error("{name} is a digest, such as sha256:<64 hex digits>: {error}")]
    Digest { name: &'static str, error: sampan_storage::digest::DigestError },
    #[error("the closing request of an upload names its digest: ?digest=sha256:<hex>")]
    DigestMissing,
    #[error("n is a number that is not negative")]
    PageSize,
    #[error("this link has grown old; begin the list again")]
    OldLink,
    #[error("{0:?} is no tag: {error}", error = sampan_storage::name::NameError::Tag)]
    Tag(String),
    #[error("at most {limit} tags in one request")]
    TooManyTags { limit: usize },
    #[error("Content-Range of an upload is <first>-<last>, both counted from 0 and included")]
    ContentRange,
    #[error("Content-Range and Content-Length do not agree")]
    ContentLength,
}

impl HttpError {
    /// The answer. What went wrong inside is logged, never told.
    pub(crate) fn respond(&self) -> HttpResponse {
        let (status, code) = self.classify();
        let message = if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::warn!(error = self as &dyn std::error::Error, "a request failed");
            "the registry could not do this; its log says why".to_owned()
        } else {
            self.to_string()
        };
        let mut response = HttpResponse::build(status);
        self.add_headers(&mut response);
        response.json(Body { errors: [Problem { code, message, detail: None }] })
    }

    fn classify(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Registry(error) => registry(error),
            Self::Upload { error, .. } => registry(error),
            Self::Path(error) => path(*error),
            Self::Denied(Denied::Stranger(_) | Denied::Rights { .. } | Denied::Status { .. }) => {
                (StatusCode::FORBIDDEN, "DENIED")
            }
            Self::NeedsLogin { .. } => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Login { error, .. } => login(*error),
            Self::SeveralCredentials => (StatusCode::BAD_REQUEST, "UNAUTHORIZED"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Query(error) => query(error),
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::ManifestCut => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestsBusy => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Gateway(error) => (gateway(error), "UNSUPPORTED"),
        }
    }

    fn add_headers(&self, response: &mut HttpResponseBuilder) {
        match self {
            Self::Registry(error) if is_passing(error) => {
                response.insert_header((RETRY_AFTER, RETRY_SECONDS));
            }
            Self::ManifestsBusy
            | Self::Gateway(GatewayError::Content(ContentError::Busy | ContentError::Timeout(_))) => {
                response.insert_header((RETRY_AFTER, RETRY_SECONDS));
            }
            Self::Registry(RegistryError::ReadOnly) => {
                response.insert_header((ALLOW, "GET, HEAD"));
            }
            Self::Method { allow } => {
                response.insert_header((ALLOW, *allow));
            }
            Self::Range { size } => {
                response.insert_header((CONTENT_RANGE, range::unsatisfied(*size)));
            }
            Self::Upload { error, location } => {
                if let Some(offset) = reached(error) {
                    uploads::add_progress(response, location, offset);
                }
                if is_passing(error) {
                    response.insert_header((RETRY_AFTER, RETRY_SECONDS));
                }
            }
            Self::Login { error: LoginError::Busy, .. } => {
                response.insert_header((RETRY_AFTER, LOGIN_RETRY_SECONDS));
            }
            Self::NeedsLogin { challenge } | Self::Login { challenge, .. } => {
                response.insert_header((WWW_AUTHENTICATE, challenge.as_str()));
            }
            Self::Registry(_)
            | Self::Path(_)
            | Self::Denied(_)
            | Self::SeveralCredentials
            | Self::Query(_)
            | Self::Gateway(_)
            | Self::ManifestCut => {}
        }
    }
}

/// Whether the same request may succeed after a while.
fn is_passing(error: &RegistryError) -> bool {
    matches!(
        error,
        RegistryError::Full(_)
            | RegistryError::TooManyUploads(_)
            | RegistryError::Rebuilding(_)
            | RegistryError::Stopping
    )
}

/// The offset at which an upload goes on after this error.
fn reached(error: &RegistryError) -> Option<u64> {
    match error {
        RegistryError::OutOfOrder { offset }
        | RegistryError::LengthMismatch { offset }
        | RegistryError::Interrupted { offset } => Some(*offset),
        _ => None,
    }
}

fn registry(error: &RegistryError) -> (StatusCode, &'static str) {
    match error {
        RegistryError::RepositoryUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
        RegistryError::BlobUnknown(_) | RegistryError::BlobUnavailable(_) | RegistryError::BlobWrong(_) => {
            (StatusCode::NOT_FOUND, "BLOB_UNKNOWN")
        }
        RegistryError::ManifestUnknown(_)
        | RegistryError::ManifestUnavailable(_)
        | RegistryError::ManifestWrong(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        RegistryError::ManifestBlobUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
        RegistryError::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        RegistryError::ManifestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
        RegistryError::DigestMismatch { .. } => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        RegistryError::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
        RegistryError::UploadBusy => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
        RegistryError::OutOfOrder { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
        RegistryError::LengthMismatch { .. } => (StatusCode::BAD_REQUEST, "SIZE_INVALID"),
        RegistryError::Interrupted { .. } => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
        RegistryError::OnlyFollowed { .. } | RegistryError::DeleteDisabled | RegistryError::ReadOnly => {
            (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")
        }
        RegistryError::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "DENIED"),
        RegistryError::TooManyUploads(_) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
        RegistryError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        RegistryError::Rebuilding(_) | RegistryError::TooOld(_) | RegistryError::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
        }
    }
}

fn login(error: LoginError) -> (StatusCode, &'static str) {
    match error {
        LoginError::Malformed | LoginError::Wrong | LoginError::Scheme(_) | LoginError::Token(_) => {
            (StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
        }
        LoginError::Busy => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
    }
}

fn path(error: PathError) -> (StatusCode, &'static str) {
    match error {
        PathError::Unknown => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
        PathError::Name => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
        PathError::Tag { pushed: true } => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
        PathError::Tag { pushed: false } => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        PathError::Digest(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
        PathError::Upload => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
    }
}

fn query(error: &QueryError) -> (StatusCode, &'static str) {
    let bad = StatusCode::BAD_REQUEST;
    match error {
        QueryError::Form => (bad, "UNSUPPORTED"),
        QueryError::ContentRange => (bad, "BLOB_UPLOAD_INVALID"),
        QueryError::Digest { .. } | QueryError::DigestMissing => (bad, "DIGEST_INVALID"),
        // Distribution's own code, which list clients know.
        QueryError::PageSize | QueryError::OldLink => (bad, "PAGINATION_NUMBER_INVALID"),
        QueryError::Tag(_) => (bad, "MANIFEST_INVALID"),
        QueryError::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, "MANIFEST_INVALID"),
        QueryError::ContentLength => (bad, "SIZE_INVALID"),
    }
}

/// kubo takes 404 and 410 for "does not have it", 429 for "later", and other codes for a server that is broken.
fn gateway(error: &GatewayError) -> StatusCode {
    match error {
        GatewayError::Address
        | GatewayError::FormatMissing
        | GatewayError::Parameter { .. }
        | GatewayError::RecordOfPath
        | GatewayError::RoutingPath
        | GatewayError::OutsideRange
        | GatewayError::Put(PutError::Record(_) | PutError::Older) => StatusCode::BAD_REQUEST,
        GatewayError::NotAcceptable | GatewayError::RecordType => StatusCode::NOT_ACCEPTABLE,
        GatewayError::Refused => StatusCode::GONE,
        GatewayError::NotCached => StatusCode::PRECONDITION_FAILED,
        GatewayError::RoutingKey => StatusCode::UNPROCESSABLE_ENTITY,
        GatewayError::RecordLength => StatusCode::PAYLOAD_TOO_LARGE,
        GatewayError::Content(ContentError::Busy) => StatusCode::TOO_MANY_REQUESTS,
        GatewayError::Content(ContentError::Timeout(_)) => StatusCode::GATEWAY_TIMEOUT,
        GatewayError::NoRecord
        | GatewayError::Content(
            ContentError::Missing(_)
            | ContentError::NoPath
            | ContentError::Unresolved
            | ContentError::Link(_)
            | ContentError::Malformed(_),
        ) => StatusCode::NOT_FOUND,
        GatewayError::Content(ContentError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
        GatewayError::Content(ContentError::Store(_)) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Serialize)]
struct Body {
    errors: [Problem; 1],
}

#[derive(Serialize)]
struct Problem {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}
