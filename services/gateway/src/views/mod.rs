//! The pages' templates and static files, and the context of each template.
//!
//! Templates hold all HTML. This module turns the data of the system into words and numbers for them. Every value of a
//! context is escaped where it is written, except for the charts, which are made of numbers alone.

mod addresses;
mod cache;
mod figures;
mod images;
mod links;
mod listing;
mod live;
mod shell;
mod stats;
mod system;
mod visible;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use charts::units;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;
use sha2::{Digest, Sha256};
use wire::Tag;

use crate::error::Error;
pub(crate) use cache::{CacheForm, CachePage, DELETE_ALL_PHRASE, FormError, changes, config_view, share};
pub(crate) use figures::home_figures;
pub(crate) use images::{
    DeletePage, Deleted, Formats, ImageFormPage, ImagePage, ImageView, Residency, UploadPage, fate,
};
pub(crate) use links::{Listing, image_page, image_source};
pub(crate) use listing::{
    ChosenPage, DeletedPage, ListPage, Outcome, deleted_notice, deleted_page, with_deleted,
};
pub(crate) use live::LivePage;
pub(crate) use shell::{Done, Section, Shell};
pub(crate) use stats::{StatsFindings, StatsPage};
pub(crate) use system::{SystemFindings, SystemPage};

/// The templates and static files of one folder. Cloning it is cheap.
///
/// A release build reads the folder once, at start. A debug build reads it again for each page, so
/// that an edited template shows at the next reload.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    folder: PathBuf,
    loaded: Arc<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    environment: Environment<'static>,
    assets: Arc<HashMap<String, Asset>>,
}

/// A static file, held in memory: all of them together are smaller than one photograph.
#[derive(Debug, Clone)]
pub(crate) struct Asset {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Its type, by the name's ending.
    pub(crate) content_type: &'static str,
    /// The beginning of its SHA-256, by which links name this version.
    pub(crate) version: String,
}

/// The templates that must be there for every page to be shown.
const PAGES: [&str; 13] = [
    "cache.html",
    "error.html",
    "home.html",
    "image.html",
    "image_delete.html",
    "image_form.html",
    "images_delete.html",
    "images_deleted.html",
    "keys.html",
    "live.html",
    "stats.html",
    "system.html",
    "upload.html",
];

impl Views {
    /// Reads the templates in `folder` and the static files in its folder `static`.
    ///
    /// # Errors
    /// When the folder or one of the pages is missing, a file can't be read, or a template is malformed.
    pub(crate) fn load(folder: &Path) -> anyhow::Result<Self> {
        let loaded = Loaded::read(folder).with_context(|| {
            format!("the page templates in {} can't be used (TEMPLATE_DIR)", folder.display())
        })?;
        Ok(Self { folder: folder.to_owned(), loaded: Arc::new(loaded) })
    }

    /// The templates and files to show. A debug build reads the folder again each time.
    fn current(&self) -> Result<Arc<Loaded>, Error> {
        if cfg!(debug_assertions) {
            Loaded::read(&self.folder).map(Arc::new).map_err(Error::Internal)
        } else {
            Ok(self.loaded.clone())
        }
    }

    /// A page as HTML.
    ///
    /// # Errors
    /// [`Error::Internal`] when the template uses a value that the page does not give.
    pub(crate) fn page<P: Serialize>(
        &self,
        template: &str,
        shell: &Shell,
        page: &P,
    ) -> Result<String, Error> {
        let context = context! { shell => Serde(shell), ..Value::from(Serde(page)) };
        self.current()?.render(template, context)
    }

    /// A part of a page as HTML, for scripts that put it in place of the one before.
    ///
    /// # Errors
    /// As [`Views::page`].
    pub(crate) fn fragment<P: Serialize>(&self, template: &str, page: &P) -> Result<String, Error> {
        self.current()?.render(template, Value::from(Serde(page)))
    }

    /// A static file by its path below `static`.
    ///
    /// # Errors
    /// [`Error::Internal`] when, in a debug build, the folder can't be read.
    pub(crate) fn asset(&self, path: &str) -> Result<Option<Asset>, Error> {
        Ok(self.current()?.assets.get(path).cloned())
    }
}

impl Loaded {
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_reload(false);
        let mut assets = HashMap::new();
        for (path, bytes) in files(folder)? {
            if let Some(path) = path.strip_prefix("static/") {
                assets.insert(path.to_owned(), Asset::new(path, bytes)?);
            } else if path.ends_with(".html") {
                let source = String::from_utf8(bytes).with_context(|| format!("{path} is not UTF-8"))?;
                environment.add_template_owned(path, source)?;
            }
        }
        let assets = Arc::new(assets);
        for page in PAGES {
            environment.get_template(page)?;
        }

        let links = assets.clone();
        environment.add_function("asset", move |path: &str| {
            let asset = links.get(path).ok_or_else(|| {
                minijinja::Error::new(
                    minijinja::ErrorKind::InvalidOperation,
                    format!("there is no static file {path}"),
                )
            })?;
            // The names of our own files need no escaping, and read better without.
            Ok::<_, minijinja::Error>(Value::from_safe_string(format!("/static/{path}?v={}", asset.version)))
        });
        environment.add_filter("bytes", units::bytes);
        environment.add_filter("count", units::count);
        environment
            .add_filter("counted", |number: u64, one: &str, many: &str| units::counted(number, one, many));
        environment.add_filter("counted_in_part", |number: u64, one: &str, many: &str| {
            units::counted_in_part(number, one, many)
        });
        environment.add_filter("percent", units::percent);
        environment.add_filter("duration", units::duration);
        environment.add_filter("visible", |text: &str| visible::visible(text).into_owned());
        environment.add_filter("addresses", |text: &str| Value::from_safe_string(addresses::whole(text)));
        Ok(Self { environment, assets })
    }

    fn render(&self, template: &str, context: Value) -> Result<String, Error> {
        let render = || self.environment.get_template(template)?.render(context);
        render().map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("the page {template} could not be made"));
            Error::Internal(error)
        })
    }
}

impl Asset {
    fn new(path: &str, bytes: Vec<u8>) -> anyhow::Result<Self> {
        let content_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("woff2") => "font/woff2",
            Some("txt" | "md") => "text/plain; charset=utf-8",
            _ => anyhow::bail!("static/{path} has an ending for which no type is known"),
        };
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let version = Tag(digest).to_string().chars().take(12).collect();
        Ok(Self { bytes: bytes.into(), content_type, version })
    }
}

/// Every file below a folder, by its path within, with `/` on every platform.
fn files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), folder.to_owned())];
    while let Some((prefix, folder)) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("{} can't be read", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("{} can't be read", folder.display()))?;
            let path = entry.path();
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if path.is_dir() {
                folders.push((format!("{name}/"), path));
            } else {
                let bytes =
                    std::fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?;
                found.push((name, bytes));
            }
        }
    }
    Ok(found)
}

/// `error.html`
#[derive(Debug, Serialize)]
pub(crate) struct ErrorPage {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The title of the status.
    pub(crate) title: &'static str,
    /// The error, in a sentence.
    pub(crate) message: String,
}

#[cfg(test)]
mod tests;
