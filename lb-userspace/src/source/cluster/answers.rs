//! What the API server says to a write.

/// HTTP's status of a write that is not allowed, or goes where nothing may be made any more.
const FORBIDDEN: u16 = 403;
/// The same of one to what has changed since it was read.
const CONFLICT: u16 = 409;
/// The same of one to what is not there.
const NOT_FOUND: u16 = 404;

/// Whether an object was changed by somebody else since it was read.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    has_code(error, CONFLICT)
}

/// Whether an object is not there any more.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    has_code(error, NOT_FOUND)
}

/// Whether the API server would refuse it again.
pub(crate) fn is_refused(error: &kube::Error) -> bool {
    has_code(error, FORBIDDEN) || has_code(error, NOT_FOUND)
}

fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
